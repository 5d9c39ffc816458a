import os
from pathlib import Path

from sqlalchemy import Engine

from sparring.contract.jobs import JOB
from sparring.contract.resources import JobInfo
from sparring.contract.specs import DataSpec, ModelSpec
from sparring.storage import attempts, gc, jobs, uploads
from sparring.storage.artifacts import Folder


def old(path: Path) -> None:
    os.utime(path, (1, 1))


def test_only_what_no_record_needs_is_deleted(engine: Engine, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "artifacts")
    names = ("model", "data", "report", "orphan", "fresh orphan")
    blobs = {name: folder.put([name.encode()]) for name in names}
    model = uploads.add_model(engine, project="default", name="m", blob=blobs["model"], format="pt2", spec=ModelSpec())
    data = uploads.add_dataset(engine, project="default", name="d", blob=blobs["data"], format="npz", spec=DataSpec())
    job = JOB.validate_python({"kind": "evaluate", "model": model.id, "data": data.id, "threats": [{"norm": "linf", "eps": 0.1}]})
    info, _ = jobs.accept(engine, job)
    attempts.claim(engine, info.id, 1, worker="w", lease=60)
    attempts.finish(engine, info.id, 1, state="succeeded", files={"report.json": blobs["report"]})
    for name in names[:4]:
        old(folder.local_path(blobs[name].sha256))

    def left() -> set[str]:
        return {name for name in names if folder.local_path(blobs[name].sha256).exists()}

    assert gc.collect(engine, folder) == (1, 0, 0)
    assert left() == {"model", "data", "report", "fresh orphan"}
    jobs.delete(engine, "default", info.id)
    uploads.delete_model(engine, "default", model.id)
    assert gc.collect(engine, folder) == (2, 0, 0)
    assert left() == {"data", "fresh orphan"}


def test_unfinished_uploads_go_when_they_are_old(sqlite_engine: Engine, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "artifacts")
    folder.tmp.mkdir(parents=True)
    for name in ("old", "new"):
        (folder.tmp / name).write_bytes(b"half")
    old(folder.tmp / "old")
    assert gc.collect(sqlite_engine, folder) == (0, 1, 0)
    assert [path.name for path in folder.tmp.iterdir()] == ["new"]


def test_work_folders_go_when_their_job_has_ended(engine: Engine, queued: JobInfo, tmp_path: Path) -> None:
    folder, work = Folder(tmp_path / "artifacts"), tmp_path / "work"
    for name in (queued.id, "job_00000000000000000000", "not a job"):
        (work / name / "1").mkdir(parents=True)
        (work / name / "1" / "shard").write_bytes(b"")
    assert gc.collect(engine, folder, work) == (0, 0, 1)
    assert sorted(path.name for path in work.iterdir()) == sorted([queued.id, "not a job"])
    jobs.cancel(engine, "default", queued.id)
    assert gc.collect(engine, folder, work) == (0, 0, 1)
    assert [path.name for path in work.iterdir()] == ["not a job"]


def test_nothing_there_is_nothing_to_do(sqlite_engine: Engine, tmp_path: Path) -> None:
    assert gc.collect(sqlite_engine, Folder(tmp_path / "none"), tmp_path / "nor this") == (0, 0, 0)
