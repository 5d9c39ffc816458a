import json
import sys

import pytest
import typer

from sparring import local
from sparring.commands.verify import verify
from sparring.errors import SparringError, UsageProblem

CHECKS = [{"threat": "linf 0.1", "claimed": 9, "confirmed": 7, "borderline": 1, "failed": 1, "refuted": ["row 3"]}]


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """`stand_in(told)` is run instead of the checker; gives a file to check."""
    (tmp_path / "report.zip").write_bytes(b"PK")

    def replace(told):
        program = f"import sys; print({told!r}); print('last words', file=sys.stderr)"
        monkeypatch.setattr(local, "command", lambda module, *arguments: [sys.executable, "-c", program])
        return tmp_path / "report.zip"

    return replace


@pytest.mark.parametrize(("code", "word"), [(0, "HOLDS: "), (1, "DOES NOT HOLD: ")])
def test_the_exit_code_is_that_of_the_check(stand_in, capsys, code, word):
    told = {"code": code, "message": "said", "hint": "", "model": "m", "data": "d", "judge": "j", "checks": CHECKS}
    with pytest.raises(typer.Exit) as ended:
        verify(stand_in(json.dumps(told)))
    out = capsys.readouterr().out
    assert ended.value.exit_code == code
    assert out.startswith(f"{word}said")
    assert "row 3" in out


def test_what_could_not_be_checked_is_an_error(stand_in):
    with pytest.raises(SparringError, match="an endpoint"):
        verify(stand_in(json.dumps({"code": 2, "message": "an endpoint", "hint": ""})))
    with pytest.raises(SparringError, match="last words"):
        verify(stand_in("no json"))


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UsageProblem, match="does not exist"):
        verify(tmp_path / "none.zip")
