import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparring import local
from sparring.commands.stack import demo
from sparring.contract.report import Report
from sparring.errors import SparringError

SPARRING = Path(sys.executable).parent / "sparring"


@pytest.mark.slow
def test_the_demo_makes_a_report_on_a_stack_of_its_own(tmp_path, redis_binary):
    pytest.importorskip("sklearn", reason="NO SCIKIT-LEARN: the demo's data come with it")
    variables = {**os.environ, "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    done = subprocess.run([SPARRING, "demo"], cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("robust accuracy ")
    report = Report.model_validate_json((tmp_path / "demo-report" / "report.json").read_bytes())
    accuracies = [report.clean.rate, *(result.worst.rate for result in report.threats)]
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[0] > 0.9
    assert accuracies[-1] < 0.1
    assert {path.name for path in (tmp_path / "demo-report").iterdir()} == {"report.json", "report.html", "report.md", "rows.csv"}
    assert not list(tmp_path.glob("sparring-demo-*"))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import no_such_package.part", "it needs no_such_package, which is not installed"),
        ("raise OSError('disk full')", "OSError: disk full"),
        ("import os; os._exit(3)", "it ended with 3, and without a word"),
    ],
)
def test_what_keeps_the_demo_from_training_is_told_without_a_traceback(tmp_path, monkeypatch, code, said):
    monkeypatch.setattr(local, "command", lambda *_: [sys.executable, "-c", code])
    with pytest.raises(SparringError) as caught:
        demo(tmp_path / "out")
    assert caught.value.message == f"The demo's model could not be trained: {said}"
    assert "scikit-learn" in caught.value.hint


@pytest.mark.slow
def test_evaluate_brings_a_stack_up_and_takes_it_down(tmp_path, redis_binary):
    pytest.importorskip("sklearn", reason="NO SCIKIT-LEARN: the data come with it")
    subprocess.run([sys.executable, "-P", "-m", "sparring.workers.digits", tmp_path], check=True, capture_output=True)
    variables = {**os.environ, "SPARRING_DATA": str(tmp_path / "data")}
    command = [SPARRING, "evaluate", "digits.pt2", "digits.npz", "--eps", "0.2", "--attack", "fgsm", "--json", "-o", "report.html"]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Report.model_validate_json(done.stdout).threats[0].worst.rate < 0.3
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
    assert not (tmp_path / "data" / "stack.json").exists()
