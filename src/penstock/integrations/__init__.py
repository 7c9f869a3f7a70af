"""Penstock where people are: one file, or one small package, for each library and framework."""
