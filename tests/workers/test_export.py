import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from sparring.contract.specs import ModelSpec
from sparring.workers.export import main
from sparring.workers.models import load_model

MODULE = """
import torch
from torch import nn

print("hello from the user's module")

def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 3))

class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x

class Noisy(nn.Module):
    def forward(self, x):
        return x.flatten(1) + torch.rand_like(x.flatten(1))

class Unlisted(nn.Module):
    def forward(self, x):
        return torch.linalg.svdvals(x)[:, 0]

def broken():
    raise RuntimeError("no GPU here")

def number():
    return 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where a user stands: their module and their weights."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "mynets.py").write_text(MODULE)
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(12, 5), torch.nn.BatchNorm1d(5), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(5, 3)
    )
    model(torch.rand(9, 12))
    torch.save(model.state_dict(), folder / "weights.pt")
    torch.save({"0.weight": torch.zeros(2)}, folder / "other.pt")
    torch.save(model, folder / "whole.pt")
    return folder


def test_a_users_model_becomes_a_pt2_that_loads(folder):
    command = [sys.executable, "-P", "-m", "sparring.workers.export", "mynets:make", "weights.pt", "out.pt2", "--shape", "1,3,4"]
    told = json.loads(subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout.splitlines()[-1])
    path = folder / "out.pt2"
    assert (told["ok"], told["path"], told["input_shape"], told["classes"]) == (True, str(path), [1, 3, 4], 3)
    assert told["parameters"] == 12 * 5 + 5 + 10 + 5 * 3 + 3
    assert told["sha256"] == sha256(path.read_bytes()).hexdigest()
    assert "aten.linear.default" in told["operators"]
    loaded = load_model(path, "pt2", ModelSpec())
    assert loaded.findings == ()
    state = torch.load(folder / "weights.pt", weights_only=True)
    assert all(torch.equal(value, loaded.module.state_dict()[name]) for name, value in state.items())


@pytest.fixture
def export(folder, monkeypatch, capsys):
    """`export(arguments…)` in the user's folder: exit code, the JSON line, the errors."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*arguments):
        code = main(arguments)
        told = capsys.readouterr()
        return code, json.loads(told.out.splitlines()[-1]), told.err

    return run


FAULTY = {
    "misspelt": ("import torch\n\ndef make()\n    return 1\n", 3, "SyntaxError: expected ':'"),
    "unnamed": ("import torch\n\nmodel = torchh.nn.Linear(1, 1)\n", 3, "NameError: name 'torchh' is not defined"),
    "dependent": ("import torch\nimport nowhere_to_be_found\n", 2, "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
    "leaving": ("import sys\nsys.exit(7)\n", 2, "SystemExit: 7"),
    "deep": ("import torch\n\ndef make():\n    return torch.nn.Linear(1, 'wide')\n", 4, "TypeError: "),
}


@pytest.mark.parametrize("name", FAULTY)
def test_a_fault_of_the_users_code_is_told_with_its_place(name, folder, export):
    code, line, fault = FAULTY[name]
    (folder / f"{name}.py").write_text(code)
    returned, answer, errors = export(f"{name}:make", "-", "o.pt2", "--shape", "12")
    assert returned == 2
    assert fault in answer["message"]
    assert f"{folder / name}.py, line {line})" in answer["message"]
    assert answer["hint"]
    assert "Traceback" not in errors


def test_the_file_tells_nothing_of_the_users_machine(folder, export):
    assert export("mynets:make", "-", "private.pt2", "--shape", "12")[0] == 0
    content = (folder / "private.pt2").read_bytes()
    assert b"stack_trace" not in content
    assert str(folder).encode() not in content
    assert torch.export.load(folder / "private.pt2").module()(torch.rand(4, 12)).shape == (4, 3)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["mynets:make", "weights.pt", "o.pt2"], 4, "--shape"),
        (["mynets:make", "weights.pt", "o.pt2", "--shape", "1,x"], 4, "no shape"),
        (["mynets:make", "weights.pt", "o.pt2", "--shape", "0"], 4, "no shape"),
        (["mynets", "weights.pt", "o.pt2", "--shape", "12"], 4, "module:function"),
        (["nowhere:make", "weights.pt", "o.pt2", "--shape", "12"], 4, "cannot find"),
        (["mynets:nothing", "weights.pt", "o.pt2", "--shape", "12"], 4, "cannot find"),
        (["mynets:number", "weights.pt", "o.pt2", "--shape", "12"], 4, "not a torch.nn.Module"),
        (["mynets:broken", "weights.pt", "o.pt2", "--shape", "12"], 2, "no GPU here"),
        (["mynets:make", "absent.pt", "o.pt2", "--shape", "12"], 4, "cannot read"),
        (["mynets:make", "other.pt", "o.pt2", "--shape", "12"], 2, "do not fit"),
        (["mynets:make", "whole.pt", "o.pt2", "--shape", "12"], 2, "not weights alone"),
        (["mynets:make", "mynets.py", "o.pt2", "--shape", "12"], 2, "text"),
        (["mynets:make", "weights.pt", "o.pt2", "--shape", "13"], 2, "cannot export"),
        (["mynets:make", "weights.pt", "absent/o.pt2", "--shape", "12"], 4, "cannot write"),
        (["mynets:Branching", "-", "o.pt2", "--shape", "12"], 2, "cannot export"),
        (["mynets:Noisy", "-", "o.pt2", "--shape", "12"], 2, "differs from the original"),
        (["mynets:Unlisted", "-", "o.pt2", "--shape", "4,4"], 2, "not on the list of operators"),
    ],
)
def test_what_cannot_be_exported_is_told(arguments, code, told, folder, export):
    returned, answer, errors = export(*arguments)
    assert (returned, answer["ok"]) == (code, False)
    assert told in answer["message"] + answer["hint"]
    assert answer["message"] in errors
    assert not (folder / "o.pt2").exists()
