"""The example repository's gate as a CI runs it: from a clean environment, by the very scripts of its CI files."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from flow.stack import Stack, eventually, stack, tree
from jsonschema import Draft202012Validator
from junitparser import JUnitXml

from sparring.contract.report import Report
from sparring.contract.verdict import Verdict
from tests.reports.sarif_subset import SUBSET

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "ci"
BIN = Path(sys.executable).parent
ACTION = yaml.safe_load((EXAMPLE / ".github/actions/sparring-gate/action.yml").read_text())
GITLAB = yaml.safe_load((EXAMPLE / ".gitlab-ci.yml").read_text())
RULES = ["clean", "robust-near", "robust-far", "no-class-is-given-up", "no-step-back", "believable", "quick"]
FORMS = ("verdict.json", "junit.xml", "gate.sarif", "gate.md", "gate.html", "badge.json", "report.html", "report.zip")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("gate") / "data") as running:
        yield running


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLE, tmp_path / "repository"))


def clean(home: Path, service: Stack | None, programs: Path = BIN, **more: str) -> dict[str, str]:
    """Nothing of this process's environment but where programs are."""
    asked = {"SPARRING_URL": service.url, "SPARRING_KEY": service.key} if service else {}
    return {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(home), "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", **asked, **more}


def run(command: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)


def act(repository: Path, service: Stack, programs: Path = BIN) -> tuple[int, Path, dict[str, str]]:
    """Run the action's own script; exit code, folder of its files, its outputs."""
    (step,) = (step for step in ACTION["runs"]["steps"] if step.get("id") == "gate")
    temp = repository.parent / "runner"
    temp.mkdir(exist_ok=True)
    files = {"GITHUB_STEP_SUMMARY": temp / "summary.md", "GITHUB_OUTPUT": temp / "output"}
    for path in files.values():
        path.write_text("")
    assert set(step["env"]) == {"POLICY", "SPARRING_URL", "SPARRING_KEY"}
    told = {"POLICY": "gate.yaml", "RUNNER_TEMP": str(temp), **{name: str(path) for name, path in files.items()}}
    environment = clean(temp, service, programs, **told)
    done = run(["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]], repository, environment)
    assert "Traceback" not in done.stderr
    outputs = dict(line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines())
    return done.returncode, temp / "sparring-gate", outputs


def check_forms(folder: Path, code: int) -> Verdict:
    verdict = Verdict.model_validate_json((folder / "verdict.json").read_bytes())
    assert verdict.exit_code == code
    assert [rule.id for rule in verdict.rules] == RULES
    (suite,) = JUnitXml.fromfile(str(folder / "junit.xml"))
    assert [case.name for case in suite] == RULES
    assert suite.failures == sum(rule.blocks for rule in verdict.rules)
    sarif = json.loads((folder / "gate.sarif").read_text())
    Draft202012Validator(SUBSET).validate(sarif)
    policy = (EXAMPLE / "gate.yaml").read_text().splitlines()
    for result in sarif["runs"][0]["results"]:
        place = result["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == "gate.yaml"
        assert policy[place["region"]["startLine"] - 1].strip() == f"- id: {result['ruleId']}"
    assert (folder / "gate.md").read_text().startswith("## Robustness gate:")
    assert "<script" not in (folder / "gate.html").read_text()
    assert json.loads((folder / "badge.json").read_text())["schemaVersion"] == 1
    assert [name for name in FORMS if not (folder / name).stat().st_size] == []
    return verdict


@pytest.mark.slow
def test_the_robust_model_passes_and_does_so_again(service: Stack, repository: Path):
    code, folder, outputs = act(repository, service)
    assert (code, outputs) == (0, {"exit-code": "0", "folder": str(folder)})
    first = check_forms(folder, 0)
    assert (folder.parent / "summary.md").read_text() == (folder / "gate.md").read_text()
    script = "\n".join(GITLAB["robustness"]["script"])
    done = run(["bash", "-eo", "pipefail", "-c", script], repository, clean(repository.parent, service))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("PASS: 7 of 7 rules hold; robust.safetensors on digits.npz, 360 rows")
    assert done.stdout.splitlines()[-1] == "report: gate/report.html"
    second = check_forms(repository / "gate", 0)
    assert first.rules[:-1] == second.rules[:-1]  # the last is about time
    assert GITLAB["robustness"]["artifacts"]["reports"]["junit"] == "gate/junit.xml"
    again = run(["sparring", "gate", "gate.yaml", "--job", first.job, "--json"], repository, clean(repository.parent, service))
    assert Verdict.model_validate_json(again.stdout).rules == first.rules


@pytest.mark.slow
def test_the_weak_model_does_not(service: Stack, repository: Path):
    shutil.copy(repository / "models/weak.safetensors", repository / "models/robust.safetensors")
    code, folder, outputs = act(repository, service)
    assert (code, outputs["exit-code"]) == (1, "1")
    verdict = check_forms(folder, 1)
    assert [rule.id for rule in verdict.rules if rule.blocks] == ["robust-far", "no-step-back"]
    assert (repository / "sparring-baselines.json").read_bytes() == (EXAMPLE / "sparring-baselines.json").read_bytes()
    checked = run(["sparring", "verify", str(folder / "report.zip"), "--json"], repository, clean(repository.parent, None))
    assert checked.returncode == 0, checked.stdout
    report = Report.model_validate_json(run(["unzip", "-p", str(folder / "report.zip"), "report.json"], repository, {}).stdout)
    claims = {each["threat"]: each["claimed"] for each in json.loads(checked.stdout)["checks"]}
    assert claims == {"as they are": 360} | {f"linf {r.threat.eps}": 360 - r.worst.count for r in report.threats}


@pytest.mark.slow
def test_the_action_installs_what_it_runs(service: Stack, repository: Path, tmp_path: Path):
    """The wheel of this tree, by the action's own script, into an environment that holds nothing else."""
    registry = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    built = run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)], tmp_path, dict(os.environ))
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("sparring-*.whl")
    fresh = tmp_path / "fresh"
    made = [
        [sys.executable, "-m", "venv", "--without-pip", str(fresh)],
        [sys.executable, "-m", "pip", "-q", "--python", str(fresh), "install", "pip"],
    ]
    assert [run(command, tmp_path, dict(os.environ)).returncode for command in made] == [0, 0]
    (step,) = (step for step in ACTION["runs"]["steps"] if "INSTALL" in step.get("env", {}))
    environment = clean(tmp_path, None, fresh / "bin", INSTALL=str(wheel), **registry)
    installed = run(["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]], repository, environment)
    assert installed.returncode == 0, installed.stderr
    assert not list(fresh.glob("lib/*/site-packages/torch"))
    code, folder, _ = act(repository, service, fresh / "bin")
    assert code == 0
    check_forms(folder, 0)


@pytest.mark.slow
def test_the_hook_and_the_tests_of_the_repository(service: Stack, repository: Path):
    environment = clean(repository.parent, service)
    hook = run([str(repository / "hooks/pre-push")], repository, environment)
    assert hook.returncode == 0, hook.stderr
    assert "3 of 3 rules hold, 4 not applied" in hook.stdout
    pytest_ = [sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", "-v", "--sparring-gate", "gate.yaml"]
    passed = run(pytest_, repository, environment)
    assert passed.returncode == 0, passed.stdout + passed.stderr
    assert [f"gate.yaml::{rule} PASSED" in passed.stdout for rule in RULES] == [True] * 7
    assert "test_a_single_step_breaks_few_rows PASSED" in passed.stdout
    shutil.copy(repository / "models/weak.safetensors", repository / "models/robust.safetensors")
    failed = run([*pytest_, "-k", "robust-far or clean"], repository, environment)
    assert failed.returncode == 1
    assert "gate.yaml::clean PASSED" in failed.stdout
    assert "gate.yaml::robust-far FAILED" in failed.stdout
    assert "Traceback" not in failed.stdout


def test_a_policy_with_a_fault_is_told_by_pytest(repository: Path):
    (repository / "gate.yaml").write_text("version: 2\n")
    done = run([sys.executable, "-P", "-m", "pytest", "--sparring-gate", "gate.yaml"], repository, clean(repository.parent, None))
    assert done.returncode == 4
    assert "gate.yaml:1: " in done.stderr


@pytest.mark.slow
def test_the_gate_proves_that_it_can_fail(service: Stack, tmp_path: Path):
    done = run(["sparring", "gate", "--selftest"], tmp_path, clean(tmp_path, service))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "SELFTEST PASSED: 3 of 3 fixtures end as they must"


def endless(repository: Path) -> None:
    policy = repository / "gate.yaml"
    policy.write_text(policy.read_text().replace("steps: 20", "steps: 100000"))


@pytest.fixture
def gated(repository: Path) -> Iterator[Callable[[dict[str, str]], subprocess.Popen[str]]]:
    started = []

    def start(environment: dict[str, str]) -> subprocess.Popen[str]:
        command = ["sparring", "gate", "gate.yaml", "-o", "junit.xml"]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, cwd=repository, env=environment, stdout=pipe, stderr=pipe, text=True, process_group=0))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_service_that_is_killed_meanwhile_is_no_pass(repository: Path, gated, tmp_path: Path):
    """It waits half a minute for the service to come back."""
    endless(repository)
    with stack(tmp_path / "data") as service:
        process = gated(clean(tmp_path, service))
        eventually(lambda: any(job.state == "running" for job in service.client.jobs.list()), what="a running job")
        for pid in [service.process.pid, *tree(service.process.pid)]:
            os.kill(pid, signal.SIGKILL)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert out.startswith("COULD NOT EVALUATE: ")
    assert JUnitXml.fromfile(str(repository / "junit.xml")).errors == 7


@pytest.mark.slow
def test_a_stack_of_the_run_s_own_serves_and_when_killed_is_no_pass(repository: Path, gated, tmp_path: Path):
    done = run(["sparring", "gate", "gate.yaml"], repository, clean(tmp_path, None, SPARRING_DATA=str(tmp_path / "own")))
    assert done.returncode == 0, done.stderr
    endless(repository)
    process = gated(clean(tmp_path, None, SPARRING_DATA=str(tmp_path / "own")))
    embedded = eventually(lambda: [pid for pid, line in tree(process.pid).items() if "service.embedded" in line], what="a stack")
    eventually((tmp_path / "own" / "stack.json").exists, what="a stack that is ready")
    for pid in [*embedded, *tree(embedded[0])]:
        os.kill(pid, signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert out.startswith("COULD NOT EVALUATE: ")
