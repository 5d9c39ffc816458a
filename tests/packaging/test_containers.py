"""The images and the compose file name only what exists, and give away as little as they can."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sparring.storage.settings import Settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if name != "redis"}


def settings() -> set[str]:
    return {f"SPARRING_{name.upper()}" for name in Settings.model_fields}


def stage(name: str) -> str:
    """The instructions of one stage of the Dockerfile."""
    return re.search(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)[1]


def modules() -> list[str]:
    commands = [" ".join(service[key]) for service in OURS.values() for key in ("command",)]
    commands += [" ".join(service["healthcheck"]["test"]) for service in OURS.values()]
    commands += re.findall(r"CMD \[(.*)\]", DOCKERFILE) + re.findall(
        r"^#.*(python .*)$", (ROOT / "docker-compose.yml").read_text(), re.MULTILINE
    )
    return sorted({name for command in commands for name in re.findall(r"\bsparring(?:\.\w+)+", command.replace('"', ""))})


def test_every_module_that_is_run_exists():
    assert {"sparring.service.api", "sparring.workers.dispatcher", "sparring.workers.worker"} <= set(modules())
    assert [name for name in modules() if importlib.util.find_spec(name) is None] == []


def test_every_variable_is_a_setting():
    named = {name for service in OURS.values() for name in service["environment"]} | set(re.findall(r"\bSPARRING_\w+", DOCKERFILE))
    named |= set(re.findall(r"\bSPARRING_\w+", (ROOT / "docker-compose.yml").read_text()))
    assert {"SPARRING_DATA", "SPARRING_REDIS_URL"} <= named <= settings()


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_hardened(name: str):
    service = SERVICES[name]
    assert int(service["user"].partition(":")[0]) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"] > 0
    assert service["healthcheck"]["test"]


@pytest.mark.parametrize("name", SERVICES)
def test_only_the_api_is_reached_from_outside_and_only_from_this_machine(name: str):
    service = SERVICES[name]
    assert COMPOSE["networks"]["inside"]["internal"] is True
    if name == "api":
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    else:
        assert "ports" not in service
        assert service["networks"] == ["inside"]


def test_redis_lets_nobody_in_without_the_password_of_the_environment():
    command = SERVICES["redis"]["command"]
    password = command[command.index("--requirepass") + 1]
    assert re.fullmatch(r"\$\{REDIS_PASSWORD:\?.+\}", password)
    assert SERVICES["redis"]["environment"] == {"REDISCLI_AUTH": password}
    assert {service["environment"]["SPARRING_REDIS_URL"] for service in OURS.values()} == {f"redis://:{password}@redis:6379/0"}


@pytest.mark.parametrize("name", ["worker", "worker-gpu"])
def test_a_worker_s_memory_is_limited(name: str):
    assert re.fullmatch(r"\$\{WORKER_MEMORY:-\d+g\}", SERVICES[name]["mem_limit"])


def test_redis_forgets_nothing():
    command = SERVICES["redis"]["command"]
    assert command[command.index("--appendonly") + 1] == "yes"
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"


@pytest.mark.parametrize("name", ["api", "worker"])
def test_an_image_is_nobody_in_particular_and_watched(name: str):
    assert "\nUSER 10001:10001\n" in stage(name)
    assert "\nHEALTHCHECK " in stage(name)


def test_the_image_that_serves_holds_no_torch():
    assert re.findall(r"whl\)\[([\w,]+)\]", stage("api")) == ["server,postgres"]


def test_what_the_wheel_is_built_of_is_sent_to_the_builder():
    sent = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    packages = {"attacks", "client", "contract", "defenses", "reports", "service", "storage", "workers"}
    assert packages | {"pyproject.toml", "README.md", "LICENSE", "constraints"} == sent
    assert all((ROOT / name).exists() for name in sent)


@pytest.mark.parametrize(
    "command", [("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"), ("hadolint", "Dockerfile")]
)
def test_the_linters_have_no_complaint(command: tuple[str, ...]):
    program = Path(sys.executable).parent / command[0]
    if not program.exists():
        pytest.skip(f"NO {command[0].upper()}: {command[-1]} was not linted")
    done = subprocess.run([program, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
