"""How a runner ends when something in it breaks, or when nobody listens any more."""

import select
import sys
from pathlib import Path

import numpy as np
import pytest
from workers.orders import gone, order, running, talk, wait_for

from sparring.contract.runner import Failed
from sparring.workers.spare import Stable
from sparring.workers.wire import send
from workers import orders

JOB = {"threats": [{"norm": "linf", "eps": 0.05}], "attacks": [{"kind": "pgd", "steps": 100_000}]}
BROKEN = """
from sparring.workers import runner

def serve(*given):
    raise {fault}

runner.serve = serve
runner.main()
"""


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uploads")
    orders.export(orders.network().eval(), folder / "model.pt2")
    x, y = orders.digits()
    np.savez(folder / "data.npz", x=x[:300], y=y[:300])
    return folder


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ("ZeroDivisionError('rows in /srv/secret/rows.csv')", "internal", "ZeroDivisionError: rows in rows.csv"),
        ("OSError(28, 'No space left on device', '/srv/secret/rows.csv')", "disk_full", "No space left on device (rows.csv)"),
        pytest.param(
            *("PermissionError(13, 'Permission denied', '/srv/secret/rows.csv')", "internal", "Permission denied (rows.csv)"),
            marks=pytest.mark.slow,
        ),
        pytest.param("MemoryError()", "out_of_memory", "Memory ran out", marks=pytest.mark.slow),
    ],
)
def test_a_fault_in_the_runner_is_told(
    fault: str, code: str, said: str, uploads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    stable = Stable("cpu", 1)
    monkeypatch.setattr(stable, "_command", [sys.executable, "-P", "-c", BROKEN.format(fault=fault)])
    runner = stable.ready()
    try:
        (answer,) = talk(runner, order(tmp_path, uploads / "model.pt2", uploads / "data.npz", JOB))
    finally:
        runner.kill()
    assert isinstance(answer, Failed)
    assert answer.reason.code == code
    assert said in answer.reason.message
    assert "secret" not in answer.model_dump_json()
    assert answer.reason.hint
    assert "Traceback" in capfd.readouterr().err


def test_a_runner_whose_word_is_left_unread_ends_with_its_wire(uploads: Path, tmp_path: Path) -> None:
    """To the runner that is a reset connection, not an end."""
    with running() as runner:
        send(runner.wire, order(tmp_path, uploads / "model.pt2", uploads / "data.npz", JOB))
        children = Path(f"/proc/{runner.pid}/task/{runner.pid}/children")
        wait_for(lambda: len(children.read_text().split()) >= 2)
        members = [int(pid) for pid in children.read_text().split()]
        assert select.select([runner.wire], [], [], 20)[0], "no progress was told"
        runner.wire.close()
        wait_for(lambda: all(gone(pid) for pid in [runner.pid, *members]))
