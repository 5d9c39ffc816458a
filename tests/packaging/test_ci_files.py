"""What we give to other people's CI is what their systems read."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "ci"
ACTION = EXAMPLE / ".github/actions/sparring-gate/action.yml"
WORKFLOW = EXAMPLE / ".github/workflows/robustness.yml"
GITLAB = EXAMPLE / ".gitlab-ci.yml"
COMPONENT = EXAMPLE / "templates" / "sparring-gate.yml"
CHECKS = {
    "action": ("--builtin-schema", "vendor.github-actions", str(ACTION)),
    "workflow": ("--builtin-schema", "vendor.github-workflows", str(WORKFLOW)),
    "timeouts": ("--builtin-schema", "custom.github-workflows-require-timeout", str(WORKFLOW)),
    "gitlab": ("--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci", str(GITLAB)),
    "policy": ("--schemafile", str(ROOT / "docs/schemas/gate.schema.json"), str(EXAMPLE / "gate.yaml")),
}


@pytest.mark.parametrize("name", CHECKS)
def test_the_schemas_have_no_complaint(name: str):
    program = Path(sys.executable).parent / "check-jsonschema"
    if not program.exists():
        pytest.skip(f"NO CHECK-JSONSCHEMA: the {name} was not linted")
    done = subprocess.run([program, *CHECKS[name]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def component():
    """The inputs of the component, and what it is with their defaults."""
    head, body = yaml.safe_load_all(COMPONENT.read_text())
    inputs = head["spec"]["inputs"]
    used = re.compile(r"\$\[\[ inputs\.(\w+) \]\]")

    def filled(part):
        if isinstance(part, dict):
            return {filled(name): filled(value) for name, value in part.items()}
        if isinstance(part, list):
            return [filled(value) for value in part]
        return used.sub(lambda found: inputs[found[1]]["default"], part) if isinstance(part, str) else part

    assert set(used.findall(yaml.safe_dump(body))) == set(inputs)
    return body, filled(body)


def test_the_component_is_a_job_as_gitlab_wants_it(component, tmp_path: Path):
    program = Path(sys.executable).parent / "check-jsonschema"
    if not program.exists():
        pytest.skip("NO CHECK-JSONSCHEMA: the component was not linted")
    (tmp_path / "ci.yml").write_text(yaml.safe_dump(component[1]))
    arguments = ("--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci", tmp_path / "ci.yml")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_component_does_what_the_file_for_gitlab_does(component):
    raw, filled = component
    job, plain = filled["robustness"], yaml.safe_load(GITLAB.read_text())["robustness"]
    same = ("stage", "image", "timeout", "artifacts")
    assert {name: job[name] for name in same} == {name: plain[name] for name in same}
    variables = job["variables"]

    def said(lines):
        written = re.sub(r"\$(\w+)", lambda found: variables[found[1]], "\n".join(lines))
        return written.replace('"', "").replace("./", "").replace(" -- ", " ")

    for part in ("before_script", "script"):
        assert said(job[part]) == said(plain[part])
        assert "$[[" not in "".join(raw["$[[ inputs.job ]]"][part])


def test_a_script_takes_what_a_caller_gives_from_its_environment_alone():
    steps = yaml.safe_load(ACTION.read_text())["runs"]["steps"]
    scripts = [step["run"] for step in steps]
    assert len(scripts) == 2
    assert [script for script in scripts if "${{" in script] == []
    for script in scripts:
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_what_a_workflow_uses_is_pinned_by_digest_or_the_platform_s_own():
    used = re.findall(r"uses: (\S+)", WORKFLOW.read_text())
    assert len(used) == 5
    for name in used:
        assert name.startswith(("./", "github/")) or re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", name), name
    assert (EXAMPLE / next(name for name in used if name.startswith("./"))).is_dir()


def test_the_hook_can_be_run():
    hook = EXAMPLE / "hooks" / "pre-push"
    assert hook.stat().st_mode & 0o111 == 0o111
    subprocess.run(["sh", "-n", hook], check=True)
    rules = {rule["id"] for rule in yaml.safe_load((EXAMPLE / "gate.yaml").read_text())["rules"]}
    assert set(re.findall(r"--rule (\S+)", hook.read_text())) <= rules
