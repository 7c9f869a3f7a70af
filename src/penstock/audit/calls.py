"""What the name of a call tells of it, where nothing else does."""

from __future__ import annotations

import ast

# Whoever is given something by a call of such a name ends it.
ENDING_WORDS = (
    "close",
    "release",
    "dispose",
    "putconn",
    "put_conn",
    "give_back",
    "return_conn",
    "disconnect",
    "cleanup",
)

# Whoever is given something by a method of such a name keeps it.
KEEPING_METHODS = frozenset(
    [
        "append",
        "appendleft",
        "add",
        "put",
        "put_nowait",
        "insert",
        "extend",
        "push",
        "setdefault",
        "setattr",
        "register",
        "callback",
        "push_async_callback",
        "enter_context",
        "enter_async_context",
        "enterContext",
        "enterAsyncContext",
        "push_async_exit",
        "addCleanup",
        "addfinalizer",
        "finalize",
        "create_task",
        "ensure_future",
        "submit",
        "start_soon",
        "add_task",
        "partial",
        "set",
        "update",
        "cast",
        "start_new_thread",
        "run_coroutine_threadsafe",
        "call_soon",
        "spawn",
    ]
)

# The ends of the process, where the system closes everything.
PROCESS_ENDS = frozenset({"sys.exit", "exit", "quit", "os._exit", "os.abort"})

# Context managers that let no exception, or not each, pass.
SWALLOWING = frozenset({"suppress", "raises", "assertRaises"})

_SAFE_NAMES = frozenset(
    [
        "print",
        "len",
        "str",
        "int",
        "float",
        "bool",
        "repr",
        "isinstance",
        "issubclass",
        "hasattr",
        "getattr",
        "id",
        "type",
        "list",
        "dict",
        "set",
        "tuple",
        "frozenset",
        "range",
        "enumerate",
        "zip",
        "sorted",
        "reversed",
        "min",
        "max",
        "sum",
        "any",
        "all",
        "abs",
        "super",
        "locals",
        "globals",
        "callable",
        "format",
        "round",
        "vars",
        "closing",
        "aclosing",
        "iter",
    ]
)
_SAFE_METHODS = frozenset(
    [
        "debug",
        "info",
        "warning",
        "warn",
        "error",
        "exception",
        "critical",
        "log",
        "append",
        "extend",
        "add",
        "items",
        "keys",
        "values",
        "get",
        "lower",
        "upper",
        "strip",
        "split",
        "join",
        "format",
        "startswith",
        "endswith",
        "replace",
        "time",
        "monotonic",
        "perf_counter",
        "now",
        "utcnow",
        "update",
        "copy",
        "pop",
        "close",
        "echo",
        "secho",
        "is_connected",
        "cursor",
        "setdefault",
        "count",
        "index",
        "isoformat",
        "strftime",
        "total_seconds",
        "encode",
        "decode",
    ]
)


def last_name(expr: ast.AST | None) -> str:
    """The last part of a dotted name; empty if it is none."""
    if isinstance(expr, ast.Attribute):
        return expr.attr
    return expr.id if isinstance(expr, ast.Name) else ""


def cannot_raise(call: ast.Call) -> bool:
    """Whether nobody who reads it expects an exception there."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr in _SAFE_METHODS
    return isinstance(call.func, ast.Name) and call.func.id in _SAFE_NAMES
