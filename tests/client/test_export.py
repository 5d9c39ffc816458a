import json
import sys
from pathlib import Path

import pytest

from sparring import local
from sparring.commands.export import export
from sparring.errors import SparringError, UsageProblem


@pytest.fixture
def stand_in(monkeypatch):
    """`stand_in(code, told)` is run instead of the exporter: prints `told`, writes to stderr, ends with `code`."""

    def replace(code, told):
        program = f"import sys; print({told!r}); print(sys.argv[1:], 'last words', file=sys.stderr); sys.exit({code})"
        monkeypatch.setattr(local, "command", lambda module, *arguments: [sys.executable, "-c", program, module, *arguments])

    return replace


def test_what_was_exported_is_shown_with_its_warnings(stand_in, tmp_path, capsys):
    finding = {"message": "Weights hold NaN.", "hint": "Train again."}
    stand_in(0, json.dumps({"ok": True, "path": "m.pt2", "parameters": 12, "operators": ["aten.add", "aten.mm"], "findings": [finding]}))
    export("nets:small", Path("-"), tmp_path / "m.pt2", "1,28,28")
    out, err = capsys.readouterr()
    assert "parameters  12" in out
    assert "operators   aten.add, aten.mm" in out
    assert "warning: Weights hold NaN. Train again." in err


@pytest.mark.parametrize(("code", "kind"), [(2, SparringError), (4, UsageProblem)])
def test_why_there_is_no_export_is_told(stand_in, tmp_path, code, kind):
    stand_in(code, json.dumps({"ok": False, "message": "nets has no small", "hint": "Write module:factory"}))
    with pytest.raises(kind, match="nets has no small") as caught:
        export("nets:small", Path("-"), tmp_path / "m.pt2", "1,28,28")
    assert caught.value.hint == "Write module:factory"
    assert caught.value.exit_code == code


def test_an_exporter_that_dies_leaves_its_last_words(stand_in, tmp_path):
    stand_in(-9, "no json")
    with pytest.raises(SparringError, match=r"'workers.export', 'nets:small'.*'--shape', '1,2'\] last words"):
        export("nets:small", Path("-"), tmp_path / "m.pt2", "1,2")


@pytest.mark.parametrize(
    ("weights", "out", "said"),
    [
        ("w.pt", "nowhere/m.pt2", "does not exist"),
        ("w.pt", "m.onnx", "what is written is a .pt2"),
        ("v.pt", "m.pt2", "v.pt does not exist"),
    ],
)
def test_what_cannot_be_read_or_written_is_bad_usage(tmp_path, weights, out, said):
    (tmp_path / "w.pt").write_bytes(b"weights")
    with pytest.raises(UsageProblem, match=said):
        export("nets:small", tmp_path / weights, tmp_path / out, "1,2")
