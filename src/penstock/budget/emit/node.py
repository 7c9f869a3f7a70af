"""Settings for Node.js: node-postgres (`pg`) and mysql2. Times are in milliseconds there, except where they say so."""

from __future__ import annotations

from .share import CONNECT, IDLE, LIFETIME, PREPARED, WAIT, Share

_EACH = "One process is one `node`: each worker of cluster or PM2 has a pool of its own."


def postgres(share: Share) -> str:
    """pg's Pool. Its connectionTimeoutMillis bounds the wait for a connection, be it a free or a new one."""
    prepared = () if share.pooler is None else (PREPARED, "Only a query with a name is prepared: give none.")
    return f"""{share.comment("//", _EACH, *prepared)}import pg from "pg";

export const pool = new pg.Pool({{
  connectionString: process.env.{share.variable},
  max: {share.each}, // of each process; 10 if not given
  connectionTimeoutMillis: {WAIT * 1000}, // 0, the default, waits for ever
  idleTimeoutMillis: {IDLE * 1000},
  maxLifetimeSeconds: {LIFETIME}, // seconds
}});
"""


def mysql2(share: Share) -> str:
    """mysql2's pool. It has no limit on the time of waiting, so that the number of those who wait is bounded."""
    prepared = () if share.pooler is None else (PREPARED, "execute() prepares: use query().")
    return f"""{share.comment("//", _EACH, *prepared)}import mysql from "mysql2/promise";

export const pool = mysql.createPool({{
  uri: process.env.{share.variable},
  connectionLimit: {share.each}, // of each process; 10 if not given
  maxIdle: {share.warm},
  idleTimeout: {IDLE * 1000},
  connectTimeout: {CONNECT * 1000},
  waitForConnections: true,
  queueLimit: {share.each * 10}, // who would wait behind so many is refused; 0, the default, is no limit
}});
"""
