from pathlib import Path

import pytest

from sparring.errors import UsageProblem
from sparring.outputs import outputs


def test_the_suffix_says_what_is_written(tmp_path):
    names = ["a.html", "b.JSON", "c.md", "d.csv", "e.parquet", "f.npz"]
    found = outputs([tmp_path / name for name in names])
    assert [o.artifact for o in found] == ["report.html", "report.json", "report.md", "rows.csv", "rows.parquet", "examples.npz"]
    assert outputs([Path("x.npz"), Path("examples.npz")], crafting=True)[0].artifact == "crafted.npz"
    assert outputs([tmp_path / "examples.npz"], crafting=True)[0].artifact == "examples.npz"


def test_what_cannot_be_written_is_found_beforehand(tmp_path):
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    for paths, said in (
        (["report.pdf"], "nothing is written as .pdf"),
        (["report"], "a file without a suffix"),
        (["nowhere/report.html"], "does not exist"),
        (["folder.html"], "this is a folder"),
        (["a.html", "./a.html"], "given twice"),
        (["loop/a.html"], "-o .*loop cannot be looked at: Too many levels"),
        (["n" * 300 + ".html"], "cannot be looked at: File name too long"),
    ):
        with pytest.raises(UsageProblem, match=said):
            outputs([tmp_path / path for path in paths])


def test_cards_and_entries_are_told_by_the_whole_ending(tmp_path):
    names = ["card.md", "net.CARD.md", "robustbench.json", "scorecard.md"]
    assert [o.artifact for o in outputs([tmp_path / name for name in names])] == ["card.md", "card.md", "robustbench.json", "report.md"]
    assert outputs([tmp_path / "card.md"], training=True)[0].artifact == "card.md"
