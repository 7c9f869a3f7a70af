"""Modules shaped like other pools, for whatever imports those."""
