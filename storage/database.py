"""The records' engine: SQLite by default, PostgreSQL by URL. Reading and writing are told apart, the clock is the database's."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Double, Engine, Table, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import InterfaceError, OperationalError, TimeoutError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

Unreachable = (OperationalError, InterfaceError, TimeoutError)
"""What every transaction raises when the records do not answer, or are locked for too long."""

BUSY_SECONDS = 30
"""How long a writer of SQLite waits for another one."""

_MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = 0x5350_4152
"""Key of PostgreSQL's advisory lock: any number, the same in every process."""


class now(FunctionElement[float]):
    """The database's clock, in seconds since 1970 (double precision)."""

    type = Double()
    inherit_cache = True


@compiles(now, "sqlite")
def _sqlite_now(element: now, compiler: SQLCompiler, **kw: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _postgresql_now(element: now, compiler: SQLCompiler, **kw: Any) -> str:
    # Not the time at which the transaction began: it may have waited long for a lock.
    return "extract(epoch from clock_timestamp())::double precision"


def connect(url: str) -> Engine:
    """An engine for `sqlite:///path` or `postgresql://…`; creates the folder of an SQLite file. Close it with `dispose()`."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        if parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        engine = create_engine(parsed, max_overflow=45, connect_args={"timeout": BUSY_SECONDS})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    return create_engine(parsed, max_overflow=15, pool_pre_ping=True, connect_args={"connect_timeout": 5})


def _prepare_sqlite(connection: Any, _: ConnectionPoolEntry) -> None:
    # The driver must not begin transactions of its own accord: it would begin them deferred.
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that writes later fails at once when another one wrote in between; one that begins as a writer waits.
    reads = connection.get_execution_options().get("reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def writing(engine: Engine) -> AbstractContextManager[Connection]:
    """One transaction that may write; committed at the end of the block, rolled back by an exception."""
    return engine.begin()


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One transaction that only reads, and waits for no writer."""
    with engine.connect().execution_options(reads=True) as connection, connection.begin():
        yield connection


def insert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that knows `on_conflict_do_nothing`, in the dialect of the connection."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def migrate(engine: Engine) -> None:
    """Brings the tables to the newest version. Any number of processes may call it at once."""
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        config.attributes["connection"] = connection
        # On SQLite the transaction itself keeps others out.
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        command.upgrade(config, "head")
