"""What is installed is what the tree holds, and the light installation is light."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
FOLDERS = SETUPTOOLS["package-dir"]
HEAVY = ("torch", "numpy", "fastapi", "uvicorn", "rq", "redis", "sqlalchemy", "alembic", "structlog", "matplotlib", "jinja2", "pyarrow")


def package(folder: Path) -> str:
    """The package as which a folder of the tree is installed."""
    top, *rest = folder.relative_to(ROOT).parts
    names = {place: name for name, place in FOLDERS.items()}
    return ".".join([names[top], *rest])


def folders() -> list[Path]:
    """Every folder of Python files under the mapped ones."""
    return sorted({path.parent for top in FOLDERS.values() for path in (ROOT / top).rglob("*.py")})


def requirement(text: str) -> str:
    """The name of a requirement, in its normal form."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.\-]+", text)[0]).lower()


def client_modules() -> set[str]:
    """The modules and packages directly under `sparring` that are the client's own."""
    return {f"sparring.{path.stem}" for path in (ROOT / "client").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()} - {
        "sparring.__init__"
    }


def test_the_packages_are_the_folders():
    assert sorted(SETUPTOOLS["packages"]) == sorted(package(folder) for folder in folders())
    assert all((folder / "__init__.py").exists() for folder in folders())


def owner(path: Path) -> Path:
    """The nearest folder of Python files above a file."""
    return next(folder for folder in path.parents if any(folder.glob("*.py")))


def test_every_other_file_of_a_package_is_installed_too():
    for folder in folders():
        patterns = SETUPTOOLS["package-data"].get(package(folder), [])
        files = {path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc") and owner(path) == folder}
        assert files == {path for pattern in patterns for path in folder.glob(pattern)}, folder


def test_the_light_installation_names_nothing_heavy():
    assert not {requirement(text) for text in PROJECT["project"]["dependencies"]} & set(HEAVY)


def test_whoever_installs_everything_reads_every_format():
    (everything,) = PROJECT["project"]["optional-dependencies"]["all"]
    assert "onnx" in everything.partition("[")[2].rstrip("]").split(",")


def test_the_client_works_without_anything_heavy():
    modules = sorted(client_modules() | {"sparring.contract.jobs", "sparring.contract.report"})
    absent = f"import sys, importlib; sys.modules.update(dict.fromkeys({HEAVY!r}))"
    program = f"{absent}; [importlib.import_module(name) for name in {modules!r}]"
    subprocess.run([sys.executable, "-P", "-c", program], check=True)


def test_the_layers_know_every_module_of_the_client():
    contracts = {contract["name"]: contract for contract in PROJECT["tool"]["importlinter"]["contracts"]}
    assert set(contracts["the client installs without torch and without the server"]["source_modules"]) == client_modules()
    assert set(contracts["arrows point down"]["layers"][0].split(" : ")) == client_modules()


def test_the_layers_hold():
    subprocess.run(["make", "-s", "links"], cwd=ROOT, check=True)
    lint = Path(sys.executable).parent / "lint-imports"
    if not lint.exists():
        pytest.skip("NO IMPORT-LINTER: the layers were not checked")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, env={"PYTHONPATH": ".lint"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_requirement_has_one_version_and_torch_names_no_build():
    lines = [line for line in (ROOT / "constraints" / "cpu.txt").read_text().splitlines() if line and not line.startswith("#")]
    pinned = {requirement(line) for line in lines}
    wanted = [
        *PROJECT["project"]["dependencies"],
        *(text for extra in PROJECT["project"]["optional-dependencies"].values() for text in extra),
    ]
    wanted += [text for group in PROJECT["dependency-groups"].values() for text in group if isinstance(text, str)]
    assert {requirement(text) for text in wanted} - pinned == {"sparring"}
    assert all(re.fullmatch(r"[\w.\-]+==[\w.!]+", line) for line in lines)
    assert not [name for name in pinned if name.startswith(("nvidia", "triton", "torchvision"))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "module", "absent"),
    [("", "sparring.cli", set(HEAVY)), ("[server,postgres]", "sparring.service.app", {"torch", "numpy", "matplotlib", "pyarrow"})],
)
def test_a_wheel_installs_alone(tmp_path: Path, extra: str, module: str, absent: set[str]):
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "wheel", "-qq", "--no-deps", "-w", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("sparring-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    constraints = ROOT / "constraints" / "cpu.txt"
    subprocess.run([*pip, "--python", python, "install", "-qq", "-c", constraints, f"{wheel}{extra}"], check=True)
    subprocess.run([python, "-P", "-c", f"import {module}"], cwd=tmp_path, check=True)
    listed = subprocess.run([*pip, "--python", python, "list", "--format=freeze"], check=True, capture_output=True, text=True).stdout
    assert not {requirement(line) for line in listed.splitlines()} & absent
