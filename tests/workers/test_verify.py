"""Reports checked away from where they were made, and what was tampered with found out."""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparring.contract.runner import Done
from sparring.workers import verify
from workers import onnx_nets, orders

JOB = {
    "threats": [{"norm": "linf", "eps": 0.1}, {"norm": "l2", "eps": 0.5}, {"norm": "linf", "eps": 0.2, "targeted": True}],
    "attacks": [{"kind": "noise"}, {"kind": "pgd", "steps": 5}],
    "rows": 80,
    "seed": 3,
}


def write_zip(folder: Path, path: Path, *, manifest: bool = True) -> Path:
    """A report.zip of these files, the manifest made anew: whoever tampers well does that too."""
    names = sorted(each.name for each in folder.iterdir() if each.name != "manifest.json")
    if manifest:
        digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
        (folder / "manifest.json").write_text(json.dumps({"version": 1, "job": "job", "files": digests}))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ["manifest.json", *names]:
            archive.write(folder / name, name)
    return path


def made(folder: Path, model: Path, job: dict[str, Any]) -> Path:
    """The files of a report, evaluated here."""
    x, y = orders.digits()
    data = folder / "data.npz"
    np.savez(data, x=x[:80], y=y[:80])
    given = orders.order(folder, model, data, job)
    done = orders.serve(given)
    assert isinstance(done, Done), done
    files = folder / "files"
    files.mkdir()
    for name in ("report.json", "rows.csv", "examples.npz"):
        shutil.copy(Path(given.out) / name, files)
    shutil.copy(data, files / "data.npz")
    shutil.copy(model, files / f"model.{given.model.format}")
    return files


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    orders.export(orders.trained(orders.network()), folder / "model.pt2")
    return made(folder, folder / "model.pt2", JOB)


@pytest.fixture
def files(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "files"))


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, Any]]]:
    """`check(files)` packs a folder and verifies it: exit code, and what is told."""

    def run(files: Path, **options: bool) -> tuple[int, dict[str, Any]]:
        code = verify.main([str(write_zip(files, tmp_path / "report.zip", **options))])
        told = json.loads(capsys.readouterr().out)
        assert told["code"] == code
        return code, told

    return run


def test_every_claim_of_an_untouched_report_holds(files: Path, check):
    code, told = check(files)
    assert code == 0, told
    assert [each["threat"] for each in told["checks"]] == ["as they are", "linf 0.1", "l2 0.5", "linf 0.2 targeted"]
    broken = [line.split(",")[5] for line in (files / "rows.csv").read_text().splitlines()[1:]].count("1")
    assert sum(each["claimed"] for each in told["checks"]) == 80 + broken
    assert broken > 20
    assert all(each["claimed"] == each["confirmed"] + each["borderline"] for each in told["checks"])


@pytest.mark.slow
def test_an_onnx_report_is_checked_by_onnxruntime(tmp_path: Path, check):
    net = orders.trained(orders.network())
    model = onnx_nets.exported(net, tmp_path / "model.onnx", row=orders.digits()[0].shape[1:])
    code, told = check(made(tmp_path, model, {**JOB, "threats": JOB["threats"][:1]}))
    assert code == 0, told
    assert "onnxruntime" in told["judge"]


def examples(files: Path, change: Callable[[dict[str, Any]], None]) -> None:
    with np.load(files / "examples.npz") as file:
        arrays = {name: file[name].copy() for name in file.files}
    change(arrays)
    np.savez(files / "examples.npz", **arrays)


def rows(files: Path, change: Callable[[list[list[str]]], None]) -> None:
    lines = [line.split(",") for line in (files / "rows.csv").read_text().splitlines()]
    change(lines)
    (files / "rows.csv").write_text("\n".join(",".join(line) for line in lines) + "\n")


def report(files: Path, change: Callable[[dict[str, Any]], None]) -> None:
    written = json.loads((files / "report.json").read_text())
    change(written)
    (files / "report.json").write_text(json.dumps(written))


def _back(arrays: dict[str, Any]) -> None:
    arrays["x"][:] = 0.5


def _far(arrays: dict[str, Any]) -> None:
    arrays["x"][np.flatnonzero(arrays["threat"] == 0)[-1]] += 0.01


def _other_row(arrays: dict[str, Any]) -> None:
    arrays["row"][0] += 1


def _short(arrays: dict[str, Any]) -> None:
    for name in arrays:
        arrays[name] = arrays[name][:-1]


def _as_objects(arrays: dict[str, Any]) -> None:
    arrays["row"] = arrays["row"].astype(object)


def _stands(lines: list[list[str]]) -> None:
    at = next(at for at, line in enumerate(lines) if line[5] == "1")
    lines[at][5:7] = ["0", ""]


def _otherwise(lines: list[list[str]]) -> None:
    at = next(at for at, line in enumerate(lines) if line[6] == "pgd")
    lines[at][7] = str((int(lines[at][7]) + 1) % 10)


def _nearer(lines: list[list[str]]) -> None:
    at = next(at for at, line in enumerate(lines) if line[6] == "pgd")
    lines[at][8] = "0.001"


def _relabelled(lines: list[list[str]]) -> None:
    for line in lines[1:]:
        line[1] = "0" if line[1] != "0" else line[1]


def _all_stand(written: dict[str, Any]) -> None:
    written["threats"][0]["worst"]["count"] = written["clean"]["count"]


def _smaller(written: dict[str, Any]) -> None:
    written["threats"][0]["threat"]["eps"] = 0.05


def _other_model(written: dict[str, Any]) -> None:
    written["model"]["sha256"] = "0" * 64


@pytest.mark.parametrize(
    ("by", "change"),
    [
        *((examples, change) for change in (_back, _far, _other_row, _short, _as_objects)),
        *((rows, change) for change in (_stands, _otherwise, _nearer, _relabelled)),
        *((report, change) for change in (_all_stand, _smaller, _other_model)),
    ],
    ids=lambda part: part.__name__,
)
def test_a_tampered_file_fails_though_its_manifest_fits(files: Path, check, by, change):
    by(files, change)
    code, told = check(files)
    assert code == 1, told
    assert told["message"]
    assert told["hint"]


def test_a_break_claimed_of_a_row_that_stands_is_refuted_by_name(files: Path, check):
    x = orders.digits()[0]

    def unharmed(arrays: dict[str, Any]) -> None:
        at = np.flatnonzero(arrays["threat"] == 0)[-1]
        arrays["x"][at] = x[arrays["row"][at]].astype(np.float32) / np.float32(255)

    examples(files, unharmed)
    code, told = check(files)
    assert code == 1
    (refuted,) = [each["refuted"] for each in told["checks"] if each["failed"]]
    assert len(refuted) == 1


def test_a_file_that_does_not_fit_its_manifest_fails(files: Path, check):
    check(files)
    with (files / "rows.csv").open("a") as file:
        file.write("\n")
    code, told = check(files, manifest=False)
    assert (code, told["message"]) == (1, "rows.csv is not what the manifest lists")


@pytest.mark.parametrize("name", ["report.json", "rows.csv", "examples.npz", "data.npz", "model.pt2"])
def test_a_file_left_out_fails(files: Path, check, name: str):
    (files / name).unlink()
    assert check(files)[0] == 1


def test_another_model_fails(files: Path, check):
    orders.export(orders.network(), files / "model.pt2")
    code, told = check(files)
    assert (code, "is not the model that the report names" in told["message"]) == (1, True)


def test_what_never_was_a_report_is_not_called_tampered_with(tmp_path: Path, capsys):
    (tmp_path / "notes.txt").write_text("PK, hello")
    np.savez(tmp_path / "data.npz", x=np.zeros(3))
    with zipfile.ZipFile(tmp_path / "folder.zip", "w") as archive:
        archive.mkdir("photos")
    zipfile.ZipFile(tmp_path / "empty.zip", "w").close()
    for name, said in (
        *(("notes.txt", "is no report.zip"), ("data.npz", "is no report.zip: it holds 'x.npy'")),
        *(("folder.zip", "it holds 'photos/'"), ("empty.zip", "is no report.zip"), ("none", "cannot be checked")),
    ):
        assert verify.main([str(tmp_path / name)]) == 2
        assert said in json.loads(capsys.readouterr().out)["message"]


def test_a_zip_that_was_cut_off_fails(tmp_path: Path, capsys):
    (tmp_path / "report.zip").write_bytes(b"PK\3\4 and then nothing")
    assert verify.main([str(tmp_path / "report.zip")]) == 1
    assert "cut off" in json.loads(capsys.readouterr().out)["message"]


def test_an_endpoint_cannot_be_asked_from_here(files: Path, check):
    def remote(written: dict[str, Any]) -> None:
        written["model"]["format"] = "endpoint"

    report(files, remote)
    code, told = check(files)
    assert (code, "endpoint" in told["message"]) == (2, True)
