import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, select, text

from sparring.storage import database, tables
from sparring.storage.database import connect, now, reading, writing


def test_the_migrations_make_the_tables_that_the_code_uses(engine: Engine) -> None:
    with writing(engine) as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
        assert connection.scalars(select(tables.projects.c.id)).all() == ["default"]


def test_the_migrations_go_back(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    with writing(engine) as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        assert inspect(connection).get_table_names() == ["alembic_version"]


def test_many_processes_may_migrate_at_once(database_url: str) -> None:
    code = "import sys; from sparring.storage.database import *; migrate(connect(sys.argv[1]))"
    processes = [subprocess.Popen([sys.executable, "-c", code, database_url], stderr=subprocess.PIPE) for _ in range(4)]
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    engine = connect(database_url)
    with reading(engine) as connection:
        assert connection.scalars(select(tables.projects.c.id)).all() == ["default"]
    engine.dispose()


def test_sqlite_is_durable_and_strict(sqlite_engine: Engine) -> None:
    with reading(sqlite_engine) as connection:
        said = {name: connection.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")}
    assert said == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30_000}


def test_the_clock_is_the_database_s_and_runs_on_within_a_transaction(engine: Engine) -> None:
    with writing(engine) as connection:
        first = connection.scalar(select(now()))
        second = connection.scalar(select(now()))
        while second == first:
            second = connection.scalar(select(now()))
    assert second > first
    assert abs(first - time.time()) < 60


def test_a_failed_block_changes_nothing(engine: Engine) -> None:
    def fail() -> None:
        with writing(engine) as connection:
            connection.execute(tables.projects.insert().values(id="other", created=now()))
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        fail()
    with reading(engine) as connection:
        assert connection.scalars(select(tables.projects.c.id)).all() == ["default"]


def test_writers_that_read_first_all_get_through(engine: Engine) -> None:
    """Begun deferred, SQLite would refuse every writer that had read before another one wrote."""
    gate = threading.Barrier(8)

    def work(_: int) -> None:
        gate.wait()
        for _ in range(5):
            with writing(engine) as connection:
                seen = connection.scalar(select(tables.projects.c.created).with_for_update())
                connection.execute(tables.projects.update().values(created=seen + 1))

    with writing(engine) as connection:
        connection.execute(tables.projects.update().values(created=0))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    with reading(engine) as connection:
        assert connection.scalar(select(tables.projects.c.created)) == 40


def test_readers_do_not_wait_for_a_writer(engine: Engine) -> None:
    with writing(engine) as writer:
        writer.execute(tables.projects.update().values(created=0))
        with reading(engine) as reader:
            assert reader.scalar(select(tables.projects.c.created)) > 0
