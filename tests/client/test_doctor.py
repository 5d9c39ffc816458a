import os
import subprocess
import sys

import pytest

from sparring.commands import doctor


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
    (tmp_path / "file").touch()
    monkeypatch.setattr("shutil.which", lambda _name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    checks = found(SPARRING_DATA=str(tmp_path / "file" / "data"))
    assert (checks["redis"].level, checks["data folder"].level) == ("fail", "fail")
    assert "redis-server" in checks["redis"].todo
    assert "SPARRING_DATA" in checks["data folder"].todo


def test_a_full_disk_is_a_warning(found, monkeypatch):
    monkeypatch.setattr(doctor, "NEEDED", 1 << 80)
    assert found()["disk"].level == "warn"


def test_a_service_is_asked_for_its_version(found, served):
    checks = found(SPARRING_URL=served.url, SPARRING_KEY=served.key)
    assert checks["service"].level == "fail"
    assert "queue cannot be reached" in checks["service"].found


def test_the_command_ends_with_2_when_something_is_missing(tmp_path, free_port):
    variables = {**os.environ, "SPARRING_DATA": str(tmp_path), "SPARRING_URL": f"http://127.0.0.1:{free_port}"}
    program = "import sys; sys.argv = ['sparring', 'doctor']\nfrom sparring.cli import main; main()"
    done = subprocess.run([sys.executable, "-P", "-c", program], env=variables, capture_output=True, text=True)
    assert done.returncode == 2
    assert "fail service" in done.stdout
    assert "A stack cannot run here: service" in done.stderr
