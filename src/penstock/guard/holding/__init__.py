"""What opens a connection becomes a checkout from one bounded pool per database and process. One file a driver.

Each has ``install(module, settings)``, which wraps what opens a connection in the driver's module.
"""
