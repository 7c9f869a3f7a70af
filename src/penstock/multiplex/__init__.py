"""Autocommit statements of many tasks, pipelined over few connections."""
