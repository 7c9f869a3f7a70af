"""What is unsafe behind PgBouncer in transaction mode: 26 constructs, each a code, PEN701 to PEN726.

There a connection of the program's is no session of the server's: with each transaction it may get another one, and
what it left in the last one is the next client's. What each does there was measured with PgBouncer 1.18.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..finding import Kind, Rule, Severity


@dataclass(frozen=True, slots=True)
class Construct:
    """*pattern* finds it at the beginning of a statement. *message* says what it does, and what to do instead."""

    rule: Rule
    pattern: re.Pattern[str]
    message: str


def _rule(number: int, severity: Severity, title: str) -> Rule:
    return Rule(f"PEN7{number:02}", Kind.SESSION_STATE, severity, title)


UNKNOWN = _rule(0, Severity.HINT, "SQL that is made as the program runs")
SET = _rule(1, Severity.HIGH, "SET outlives its transaction")
SET_CONFIG = _rule(2, Severity.HIGH, "set_config() for the session")
SET_LOCAL = _rule(3, Severity.MEDIUM, "SET LOCAL outside of a transaction")
SET_ROLE = _rule(4, Severity.HIGH, "SET ROLE or SET SESSION AUTHORIZATION")
CHARACTERISTICS = _rule(5, Severity.HIGH, "the session's way of transactions is set")
TRACKED_SINCE_1_20 = _rule(6, Severity.LOW, "a setting that PgBouncer follows since 1.20 alone")
STARTUP = _rule(7, Severity.MEDIUM, "a setting in the startup packet")
PREPARE = _rule(8, Severity.HIGH, "PREPARE and EXECUTE in SQL")
PREPARED = _rule(9, Severity.MEDIUM, "prepared statements of the driver")
DISCARD = _rule(10, Severity.MEDIUM, "DISCARD ALL or DEALLOCATE ALL")
LISTEN = _rule(11, Severity.HIGH, "LISTEN")
ADVISORY = _rule(12, Severity.HIGH, "an advisory lock of the session")
TEMPORARY = _rule(13, Severity.HIGH, "a temporary object that outlives its transaction")
HOLD = _rule(14, Severity.HIGH, "a cursor WITH HOLD")
CURSOR = _rule(15, Severity.MEDIUM, "a server-side cursor outside of a transaction")
LOAD = _rule(16, Severity.MEDIUM, "LOAD")
CURRVAL = _rule(17, Severity.HIGH, "currval() or lastval() outside of the insert's transaction")
SEED = _rule(18, Severity.LOW, "setseed()")
RESET = _rule(19, Severity.MEDIUM, "RESET")
REPLICATION = _rule(20, Severity.MEDIUM, "a replication connection")
COPY = _rule(21, Severity.LOW, "COPY outside of a transaction")
ON_CONNECT = _rule(22, Severity.HIGH, "a setting that is made as a connection opens")
BACKEND = _rule(23, Severity.LOW, "logic that rests on the backend's identity")
# PEN724, a transaction that is left open, is PEN510's to tell, with a pooler or without.
TWO_PHASE = _rule(25, Severity.HINT, "a transaction in two phases")
STATEMENT_MODE = _rule(26, Severity.HIGH, "a transaction in statement mode")
RULES = (
    UNKNOWN, SET, SET_CONFIG, SET_LOCAL, SET_ROLE, CHARACTERISTICS, TRACKED_SINCE_1_20, STARTUP, PREPARE, PREPARED,
    DISCARD, LISTEN, ADVISORY, TEMPORARY, HOLD, CURSOR, LOAD, CURRVAL, SEED, RESET, REPLICATION, COPY, ON_CONNECT,
    BACKEND, TWO_PHASE, STATEMENT_MODE,
)  # fmt: skip

# Settings that PgBouncer gives to each client as it left them: PostgreSQL reports their changes.
TRACKED = frozenset(
    {"timezone", "datestyle", "client_encoding", "standard_conforming_strings", "application_name", "names"}
)


def _of(rule: Rule, pattern: str, message: str) -> Construct:
    return Construct(rule, re.compile(pattern, re.IGNORECASE), message)


# The first that fits is the one. SET LOCAL, SET CONSTRAINTS and SET TRANSACTION end with their transaction.
CONSTRUCTS = (
    _of(SET_LOCAL, r"SET LOCAL\b|SELECT .*?\bset_config ?\(.*?,.*?, ?(?:true|'')(?:::bool\w*)? ?\)",
        "outside of a transaction this sets nothing, and PostgreSQL only warns: open a transaction round it"),
    _of(SET_ROLE, r"SET (?:SESSION )?(?:ROLE|AUTHORIZATION)\b",
        "the role stays with the server connection, for whoever gets it next: use SET LOCAL ROLE in a transaction"),
    _of(CHARACTERISTICS, r"SET (?:SESSION CHARACTERISTICS\b|(?:SESSION )?default_transaction_\w+)",
        "this holds for the next clients' transactions too: use SET TRANSACTION within each"),
    _of(SEED, r"SET (?:SESSION )?SEED\b|.*\bsetseed ?\(",
        "the seed stays with the server connection: random() of another client follows it"),
    _of(TRACKED_SINCE_1_20, r"SET (?:SESSION )?IntervalStyle\b",
        "PgBouncer before 1.20 does not follow this setting: other clients see it. Use SET LOCAL in a transaction"),
    _of(SET, r"SET (?:SESSION )?(?!LOCAL\b|CONSTRAINTS\b|TRANSACTION\b|TIME ZONE\b|GLOBAL\b|@|PERSIST|PASSWORD\b"
             r"|CHARACTER\b|CHARSET\b)(?:SCHEMA\b|XML OPTION\b|(?P<name>[\w.\"\x1a]+) ?(?:=|TO\b))",
        "the setting stays with the server connection: other clients get it, and this one loses it."
        " Use SET LOCAL in a transaction, or ALTER ROLE ... SET"),
    _of(SET_CONFIG, r".*\bset_config ?\(.*?,.*?, ?(?:false|'f')(?:::bool\w*)? ?\)",
        "the setting stays with the server connection, for whoever gets it next (a tenant's id too):"
        " give true as the third argument, in a transaction"),
    _of(DISCARD, r"DISCARD ALL\b|DISCARD \w+|DEALLOCATE (?:PREPARE )?ALL\b",
        "this wipes what other clients have in the server connection: PgBouncer resets connections itself"),
    _of(PREPARE, r"PREPARE (?!TRANSACTION\b)\w|EXECUTE \w|DEALLOCATE \w",
        "a statement that is prepared in SQL stays with one server connection, and its name is every client's:"
        " let the driver prepare (PgBouncer 1.21 or newer follows that)"),
    _of(LISTEN, r"(?:UN)?LISTEN\b",
        "the server connection listens, and this client hears nothing: listen on a connection that does not go through"
        " PgBouncer, or by an alias in session mode"),
    _of(ADVISORY, r".*\bpg_(?:try_)?advisory_(?:lock|unlock)\w*",
        "the lock is the server connection's: another client may be given it at the same time, and it is not freed."
        " Use pg_advisory_xact_lock()"),
    _of(TEMPORARY, r"CREATE (?:OR REPLACE )?(?:LOCAL |GLOBAL )?TEMP(?:ORARY)? (?!.*\bON COMMIT DROP\b)"
                   r"|CREATE (?:OR REPLACE )?\w+ pg_temp\.|SELECT .*\bINTO TEMP(?:ORARY)?\b",
        "it stays with the server connection: the next transaction may not find it, and other clients do."
        " Create it ON COMMIT DROP, in the transaction that uses it"),
    _of(HOLD, r"DECLARE .*\bWITH HOLD\b",
        "the cursor stays with the server connection after its transaction: fetch from it within the transaction"),
    _of(CURSOR, r"DECLARE .*\bCURSOR\b",
        "outside of a transaction the cursor is gone with the statement: open a transaction round it"),
    _of(LOAD, r"LOAD ''", "the library stays with one server connection: use session_preload_libraries"),
    _of(CURRVAL, r".*\b(?:currval|lastval) ?\(",
        "another client may have used the server connection since: its value is what this gives. Use RETURNING"),
    _of(RESET, r"RESET \w", "this wipes settings that other clients have in the server connection: use SET LOCAL, which"
        " needs no reset"),
    _of(COPY, r"COPY .*\b(?:FROM STDIN|TO STDOUT)\b",
        "if a COPY outside of a transaction fails, PgBouncer may lose the server connection: open a transaction"),
    _of(BACKEND, r".*\bpg_(?:backend_pid|export_snapshot|current_snapshot)\b|SET TRANSACTION SNAPSHOT\b",
        "the next transaction may run in another backend: what is told by this one's identity is then somebody else's"),
    _of(TWO_PHASE, r"PREPARE TRANSACTION\b",
        "it is safe here, and stays for ever if nobody ends it: watch pg_prepared_xacts"),
)  # fmt: skip
