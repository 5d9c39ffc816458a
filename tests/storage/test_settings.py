from pathlib import Path

import pytest
from pydantic import ValidationError

from sparring.storage.settings import Settings


@pytest.fixture(autouse=True)
def bare(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings in the environment."""
    for name in ("SPARRING_DATA", "SPARRING_REDIS_URL", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = Settings()
    data = tmp_path / ".local/share/sparring"
    assert (settings.data, settings.artifacts, settings.work, settings.cache) == (data, data / "artifacts", data / "work", data / "cache")
    assert settings.database == f"sqlite:///{data}/records.db"
    assert settings.redis_url == "redis://127.0.0.1:6379/0"
    assert (settings.host, settings.port, settings.anonymous) == ("127.0.0.1", 8787, False)


def test_the_environment_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/somewhere")
    monkeypatch.setenv("SPARRING_DATABASE_URL", "postgresql://db/x")
    monkeypatch.setenv("SPARRING_MAX_UPLOAD", "17")
    settings = Settings()
    assert (settings.data, settings.database, settings.max_upload) == (Path("/somewhere/sparring"), "postgresql://db/x", 17)


def test_redis_by_its_usual_name_unless_ours_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://usual")
    assert Settings().redis_url == "redis://usual"
    monkeypatch.setenv("SPARRING_REDIS_URL", "unix:///ours")
    assert Settings().redis_url == "unix:///ours"
    assert Settings(redis_url="redis://said").redis_url == "redis://said"


@pytest.mark.parametrize(("name", "value"), [("SPARRING_LEASE", "0"), ("SPARRING_PORT", "70000"), ("SPARRING_MAX_UPLOAD", "-1")])
def test_nonsense_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=name.removeprefix("SPARRING_").lower()):
        Settings()
