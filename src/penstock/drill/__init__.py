"""Drills: replay an outage with real clients against a real PostgreSQL, and measure who held the line."""
