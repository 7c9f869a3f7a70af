"""Settings for HikariCP, as Spring Boot's application.properties. Times are in milliseconds."""

from __future__ import annotations

from .share import CONNECT, IDLE, LIFETIME, PREPARED, WAIT, Share


def hikaricp(share: Share) -> str:
    """A pool that gives back what it does not need, so that others may have it."""
    comment = share.comment("#", "For application.properties. One process is one JVM.")
    prepared = ""
    if share.pooler is not None:
        prepared = f"# {PREPARED}\n# (pgjdbc's own setting)\n"
        prepared += "spring.datasource.hikari.data-source-properties.prepareThreshold=0\n"
    return f"""{comment}spring.datasource.hikari.pool-name={share.service.name}
# of each JVM; 10 if not given
spring.datasource.hikari.maximum-pool-size={share.each}
spring.datasource.hikari.minimum-idle={share.warm}
# to wait for a connection before it throws; 30000 if not given
spring.datasource.hikari.connection-timeout={WAIT * 1000}
spring.datasource.hikari.validation-timeout={CONNECT * 1000}
spring.datasource.hikari.idle-timeout={IDLE * 1000}
spring.datasource.hikari.max-lifetime={LIFETIME * 1000}
{prepared}"""
