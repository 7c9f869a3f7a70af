"""Nothing changes: who opens a connection, who holds it and who never closes it is noted, and told. One file a driver.

Each has ``install(module, settings)``, which wraps what opens a connection in the driver's module.
"""

from .. import account

account.install()
