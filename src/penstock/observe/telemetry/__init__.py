"""A local socket on which a process tells of its connections, and what reads it. See docs/telemetry.md."""
