"""SQLAlchemy's Core statements as `AsyncPool.fetch` sends them: compiled once, by SQLAlchemy, for psycopg.

The key of what was compiled is SQLAlchemy's own cache key, in which the values of a statement are left out, so that
``select(users).where(users.c.id == 7)`` is compiled, and prepared on the server, once for all ids. No engine, and no
connection of SQLAlchemy's, is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from psycopg.rows import tuple_row
from sqlalchemy import exc
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.util import LRUCache

MOST_COMPILED = 500  # as an engine keeps

Values = MutableMapping[str, Any]
Convert = Callable[[Any], Any]

_dialect: Any = PGDialect_psycopg(paramstyle="format")  # type: ignore[no-untyped-call]
_compiled: LRUCache[Any, Any] = LRUCache(MOST_COMPILED)
# Compiled for a map of schemas without one for None: SQLAlchemy's key does not tell it from a map with one.
_compiled_without_none: LRUCache[Any, Any] = LRUCache(MOST_COMPILED)
_NOT_OURS = ("no_parameters", "postgresql_readonly", "postgresql_deferrable")  # execution options that change meaning
_plans: WeakKeyDictionary[SQLCompiler, Plan] = WeakKeyDictionary()


class Spelled(NamedTuple):
    """A statement as psycopg takes it."""

    text: str
    params: tuple[Any, ...]
    row_factory: Any


def spelled(statement: Any, params: Mapping[str, Any] | None, row_factory: Any) -> Spelled:
    """*statement* in SQL, with its values and *params*, and the row factory that gives what its types promise.

    :raises sqlalchemy.exc.SQLAlchemyError: when it cannot be compiled, or a value is missing.
    :raises TypeError: when *params* is no mapping, or this is DDL or a part of a statement, or one of its options asks
        for what only an engine or a session does.
    """
    if isinstance(statement, FunctionElement):
        statement = statement.select()  # as an engine does
    if isinstance(statement, ExecutableDDLElement) or not statement.supports_execution:
        raise not_taken(statement)
    if params is not None and not isinstance(params, Mapping):
        raise TypeError(f"params of a statement of SQLAlchemy's must be one mapping of names, not {params!r}")
    if getattr(statement, "is_insert", False) and not statement._returning and not statement._inline:
        statement = statement.inline()  # or it would return the key that an engine wants to know
    schemas = _schemas(statement._execution_options)
    compiled, extracted, *collected, _ = statement._compile_w_cache(
        _dialect,
        compiled_cache=_compiled_without_none if schemas and None not in schemas else _compiled,
        column_keys=sorted(params or ()),
        schema_translate_map=schemas,
    )
    more = {"_collected_params": collected[0]} if collected else {}  # SQLAlchemy 2.0 has none
    values = compiled.construct_params(params, extracted_parameters=extracted, escape_names=False, **more)
    plan = _plans.get(compiled)
    if plan is None:
        plan = _plans[compiled] = Plan(compiled)
    if plan.defaults:
        Filling(values).fill(plan.defaults)
    text, ordered = plan.fill_in(compiled, values)
    if schemas:
        text = compiled.preparer._render_schema_translates(text, dict(schemas))
    return Spelled(text, ordered, plan.rows(row_factory))


def not_taken(thing: Any) -> TypeError:
    """Of SQLAlchemy, but nothing that can be sent."""
    takes = "select(), insert(), update(), delete(), text() and functions"
    return TypeError(f"of SQLAlchemy's this takes {takes}, not {type(thing).__name__}")


def _schemas(options: Mapping[str, Any]) -> Mapping[str | None, str | None] | None:
    """The statement's `schema_translate_map`.

    :raises TypeError: when another of its options changes what it means.
    """
    if not options:
        return None
    for name in _NOT_OURS:
        if options.get(name):
            raise TypeError(
                f"the execution option {name} is not for a statement that holds no connection: leave it out, or execute"
                " this with SQLAlchemy's engine"
            )
    return options.get("schema_translate_map")


class Plan:
    """What is known of a compiled statement, worked out once. It does not keep it."""

    def __init__(self, compiled: SQLCompiler) -> None:
        if getattr(compiled.compile_state, "eager_joins", None):
            raise TypeError(
                "joined eager loading adds columns and rows of which only a session makes objects: select columns, or"
                ' turn it off with .options(lazyload("*"))'
            )
        self._text = compiled.string
        self._expands = bool(compiled.literal_execute_params or compiled.post_compile_params)
        self._names: Sequence[str] = compiled.positiontup or ()
        self._converts: Mapping[str, Any] = compiled._bind_processors
        self.defaults = list(_defaults(compiled))
        self._columns = Columns(compiled)
        self._rows = Rows(self._columns, None)

    def fill_in(self, compiled: SQLCompiler, values: Values) -> tuple[str, tuple[Any, ...]]:
        """The text, which depends on how many values an IN has, and the values in its order."""
        text, names, converts = self._text, self._names, self._converts
        if self._expands:
            state = compiled._process_parameters_for_postcompile(values)
            text, names, converts = state.statement, state.positiontup or (), {**converts, **state.processors}
        if not converts:
            return text, tuple([values[name] for name in names])
        return text, tuple([converts[name](values[name]) if name in converts else values[name] for name in names])

    def rows(self, row_factory: Any) -> Any:
        if self._columns.are_plain:
            return row_factory
        return self._rows if row_factory is None else Rows(self._columns, row_factory)


class Columns:
    """The types of a statement's columns.

    :ivar are_plain: none of them makes anything else of what psycopg gives.
    """

    def __init__(self, compiled: SQLCompiler) -> None:
        self._columns = compiled._result_columns
        self._in_order = compiled._ordered_columns or compiled._textual_ordered_columns
        self._converts: dict[tuple[Any, ...], list[Convert | None]] = {}
        self.are_plain = all(map(_is_plain, self._columns))

    def converts(self, result: Any) -> list[Convert | None]:
        """What to make of each column of *result*: that depends on the server's types, too."""
        names = () if self._in_order else tuple(result.fname(column).decode() for column in range(result.nfields))
        oids = tuple(result.ftype(column) for column in range(result.nfields))
        known = self._converts.get((names, oids))
        if known is None:
            by_name = {column.keyname: column for column in self._columns}
            columns = [by_name.get(name) for name in names] if names else self._columns
            known = [
                column and column.type._cached_result_processor(_dialect, oid)
                for column, oid in zip(columns, oids, strict=False)
            ]
            self._converts[names, oids] = known
        return known


class Rows:
    """A row factory that converts the values before *inner* (None: the connection's own) makes a row of them."""

    def __init__(self, columns: Columns, inner: Any) -> None:
        self._columns = columns
        self._inner = tuple_row if inner is tuple else inner

    def __call__(self, cursor: Any) -> Callable[[Sequence[Any]], Any]:
        converts = self._columns.converts(cursor.pgresult)
        make = (self._inner or cursor.connection.row_factory)(cursor)

        def row(values: Sequence[Any]) -> Any:
            return make([value if to is None else to(value) for to, value in zip(converts, values, strict=True)])

        return row


class Filling:
    """What a column's Python-side default is called with: SQLAlchemy's context, as far as there is one."""

    def __init__(self, values: Values) -> None:
        self.current_parameters = values

    def get_current_parameters(self, isolate_multiinsert_groups: bool = True) -> Values:
        return self.current_parameters

    def fill(self, defaults: Sequence[tuple[str, Any, bool]]) -> None:
        for name, given, is_scalar in defaults:
            self.current_parameters[name] = given if is_scalar else given(self)


def _defaults(compiled: SQLCompiler) -> Iterator[tuple[str, Any, bool]]:
    """Of columns that get their value from Python: name, value or function, and which of the two it is."""
    told = [(column, column._default_description_tuple) for column in compiled.insert_prefetch]
    told += [(column, column._onupdate_description_tuple) for column in compiled.update_prefetch]
    for column, (given, is_scalar, is_callable, _) in told:
        if not is_scalar and not is_callable:
            raise exc.CompileError(f"the default of {column} needs a statement of its own: give its value")
        yield compiled._within_exec_param_key_getter(column), given, bool(is_scalar)


def _is_plain(column: Any) -> bool:
    try:
        return column.type._cached_result_processor(_dialect, None) is None
    except exc.InvalidRequestError:  # Numeric: it depends on the server's type
        return False
