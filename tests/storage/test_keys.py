from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, select, text

from sparring.storage import keys, tables
from sparring.storage.database import reading
from sparring.storage.errors import Missing


def test_a_key_lets_its_holder_in_and_nobody_else(engine: Engine) -> None:
    mine, other = (keys.create(engine, project="default", name=name) for name in ("ci", "laptop"))
    holder = keys.verify(engine, mine.key)
    assert holder is not None
    assert (holder.project, holder.key.id, holder.key.name) == ("default", mine.id, "ci")
    forged = other.key[: len("svc_") + len(other.id) + 1] + mine.key[-43:]
    for wrong in ("", "svc_", mine.key + "x", mine.key[:-1], mine.key.upper(), forged, f"svc_key_{'0' * 20}_{'A' * 43}", "svc_\x00é"):
        assert keys.verify(engine, wrong) is None, wrong


def test_the_secret_is_nowhere_in_the_records(engine: Engine) -> None:
    made = keys.create(engine, project="default", name="ci")
    with reading(engine) as connection:
        kept = str(connection.execute(select(tables.keys)).mappings().one())
    assert made.key[-43:] not in kept
    assert "key" not in keys.list_keys(engine, "default")[0].model_dump()


def test_an_expired_key_lets_nobody_in(engine: Engine) -> None:
    hour = timedelta(hours=1)
    assert keys.verify(engine, keys.create(engine, project="default", name="old", expires=datetime.now(UTC) - hour).key) is None
    later = datetime.now(UTC) + hour
    holder = keys.verify(engine, keys.create(engine, project="default", name="new", expires=later).key)
    assert holder is not None
    assert holder.key.expires is not None
    assert abs(holder.key.expires - later) < timedelta(seconds=1)


def test_a_revoked_key_lets_nobody_in(engine: Engine) -> None:
    made = keys.create(engine, project="default", name="ci")
    with pytest.raises(Missing):
        keys.revoke(engine, "other", made.id)
    keys.revoke(engine, "default", made.id)
    assert keys.verify(engine, made.key) is None
    assert keys.list_keys(engine, "default") == ()
    with pytest.raises(Missing, match=made.id):
        keys.revoke(engine, "default", made.id)


def test_the_last_use_is_known_to_the_minute(engine: Engine, age: Callable[..., None]) -> None:
    def last_used() -> datetime | None:
        return keys.list_keys(engine, "default")[0].last_used

    made = keys.create(engine, project="default", name="ci")
    assert last_used() is None
    keys.verify(engine, made.key[:-43] + "A" * 43)
    assert last_used() is None
    keys.verify(engine, made.key)
    first = last_used()
    keys.verify(engine, made.key)
    assert first == last_used() is not None
    age("keys", "last_used", keys.USED_EVERY + 1)
    keys.verify(engine, made.key)
    assert last_used() >= first


def test_a_key_of_no_project_cannot_be_made(engine: Engine) -> None:
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        keys.create(engine, project="nowhere", name="ci")
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM keys")) == 0
