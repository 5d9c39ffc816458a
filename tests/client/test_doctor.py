import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest

from sparring.commands import doctor
from tests.service.conftest import serving, settings_in


@pytest.fixture
def found(monkeypatch, tmp_path):
    """What the doctor finds, by name."""

    def look(**environment):
        for name, value in {"SPARRING_DATA": str(tmp_path / "data"), **environment}.items():
            monkeypatch.setenv(name, value)
        return {check.what: check for check in doctor.checks()}

    return look


def test_a_machine_with_everything_is_well(found, redis_binary):
    checks = found()
    assert {check.level for check in checks.values()} <= {"ok", "warn"}
    assert checks["redis"].level == "ok"
    assert "made when it is needed" in checks["data folder"].found
    assert "none runs here" in checks["service"].found


def test_what_is_missing_says_what_to_do(found, monkeypatch, tmp_path):
    def version(name):
        raise PackageNotFoundError(name)

    (tmp_path / "file").touch()
    monkeypatch.setattr("importlib.metadata.version", version)
    checks = found(SPARRING_DATA=str(tmp_path / "file" / "data"))
    assert {name for name, check in checks.items() if check.level == "fail"} == {"torch", "fastapi", "rq", "data folder"}
    assert "sparring[worker]" in checks["torch"].todo
    assert "SPARRING_DATA" in checks["data folder"].todo


@pytest.mark.parametrize("variable", ["SPARRING_REDIS_URL", "REDIS_URL"])
def test_a_redis_that_is_named_is_the_one_looked_at(found, redis_url, tmp_path, variable):
    assert "the Redis of SPARRING_REDIS_URL" in found(**{variable: redis_url})["redis"].found
    away = found(**{variable: f"unix://{tmp_path}/nobody.sock"})["redis"]
    assert away.level == "fail"
    assert "unset it" in away.found


def test_a_stack_that_has_just_come_up_may_wait_for_its_worker(found, tmp_path, redis_url, monkeypatch):
    folder = tmp_path / "data"
    with serving(settings_in(folder, redis_url=redis_url)) as served:
        note = {"url": served.url, "key": served.key, "data": str(folder), "redis": "unix:///q.sock"}
        (folder / "stack.json").write_text(json.dumps(note))
        checks = found(REDIS_URL=redis_url)
        assert checks["queue"].found.startswith("unix:///q.sock")
        new = checks["workers"]
        os.utime(folder / "stack.json", (1, 1))
        old = found(REDIS_URL=redis_url)["workers"]
    assert (new.level, old.level) == ("ok", "warn")
    assert "coming up" in new.found


def test_a_full_disk_is_a_warning(found, monkeypatch):
    monkeypatch.setattr(doctor, "NEEDED", 1 << 80)
    assert found()["disk"].level == "warn"


def test_a_service_is_asked_for_its_version(found, served):
    checks = found(SPARRING_URL=served.url, SPARRING_KEY=served.key)
    assert set(checks) == {"python", "service"}
    assert checks["service"].level == "fail"
    assert "queue cannot be reached" in checks["service"].found


def test_the_command_ends_with_2_when_something_is_missing(tmp_path, free_port):
    variables = {**os.environ, "SPARRING_DATA": str(tmp_path), "SPARRING_URL": f"http://127.0.0.1:{free_port}"}
    program = "import sys; sys.argv = ['sparring', 'doctor']\nfrom sparring.cli import main; main()"
    done = subprocess.run([sys.executable, "-P", "-c", program], env=variables, capture_output=True, text=True)
    assert done.returncode == 2
    assert "fail service" in done.stdout
    assert "Not all is well: service" in done.stderr
