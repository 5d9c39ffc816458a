import fcntl
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine

from sparring.contract.jobs import JOB
from sparring.contract.resources import DatasetInfo, JobInfo
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

    assert gc.collect(engine, folder) == (1, 0, 0, 0)
    assert left() == {"model", "data", "report", "fresh orphan"}
    jobs.delete(engine, "default", info.id)
    uploads.delete_model(engine, "default", model.id)
    assert gc.collect(engine, folder) == (2, 0, 0, 0)
    assert left() == {"data", "fresh orphan"}


def test_unfinished_uploads_go_when_they_are_old(sqlite_engine: Engine, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "artifacts")
    folder.tmp.mkdir(parents=True)
    for name in ("old", "new"):
        (folder.tmp / name).write_bytes(b"half")
    old(folder.tmp / "old")
    assert gc.collect(sqlite_engine, folder) == (0, 1, 0, 0)
    assert [path.name for path in folder.tmp.iterdir()] == ["new"]


def _work(parent: Path, *names: str) -> Path:
    for name in names:
        (parent / name / "1").mkdir(parents=True)
        (parent / name / "1" / "shard").write_bytes(b"")
    return parent


def test_work_folders_go_when_their_job_has_ended_long_ago(
    engine: Engine, queued: JobInfo, age: Callable[..., None], tmp_path: Path
) -> None:
    folder, work = Folder(tmp_path / "artifacts"), _work(tmp_path / "work", queued.id, "job_00000000000000000000", "not a job")
    assert gc.collect(engine, folder, work) == (0, 0, 1, 0)
    assert sorted(path.name for path in work.iterdir()) == sorted([queued.id, "not a job"])
    jobs.cancel(engine, "default", queued.id)
    age("jobs", "finished", gc.GRACE - 60)
    assert gc.collect(engine, folder, work) == (0, 0, 0, 0)
    age("jobs", "finished", 120)
    assert gc.collect(engine, folder, work) == (0, 0, 1, 0)
    assert [path.name for path in work.iterdir()] == ["not a job"]


def test_the_work_of_a_job_that_is_tried_again_is_kept(engine: Engine, queued: JobInfo, age: Callable[..., None], tmp_path: Path) -> None:
    work = _work(tmp_path / "work", queued.id)
    jobs.cancel(engine, "default", queued.id)
    age("jobs", "finished", 2 * gc.GRACE)
    jobs.retry(engine, "default", queued.id)
    assert gc.collect(engine, Folder(tmp_path / "artifacts"), work) == (0, 0, 0, 0)
    assert (work / queued.id / "1" / "shard").exists()


def test_a_job_tried_again_just_as_its_work_is_deleted_keeps_it(
    engine: Engine, queued: JobInfo, age: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, rename = _work(tmp_path / "work", queued.id), Path.rename
    jobs.cancel(engine, "default", queued.id)
    age("jobs", "finished", 2 * gc.GRACE)

    def just_before(path: Path, target: Path) -> Path:
        if path.name == queued.id:
            jobs.retry(engine, "default", queued.id)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", just_before)
    assert gc.collect(engine, Folder(tmp_path / "artifacts"), work) == (0, 0, 0, 0)
    assert [path.name for path in work.iterdir()] == [queued.id]
    assert (work / queued.id / "1" / "shard").exists()


def test_unpacked_datasets_go_with_their_records(engine: Engine, queued: JobInfo, data: DatasetInfo, tmp_path: Path) -> None:
    folder, cache = Folder(tmp_path / "artifacts"), _work(tmp_path / "cache", data.sha256, "ab" * 32, ".old", ".new", "other")
    old(cache / ".old")
    old(cache / data.sha256)
    assert gc.collect(engine, folder, None, cache) == (0, 0, 0, 1)
    assert {path.name for path in cache.iterdir()} == {data.sha256, ".new", "other"}
    jobs.cancel(engine, "default", queued.id)
    uploads.delete_dataset(engine, "default", data.id)
    assert gc.collect(engine, folder, None, cache) == (0, 0, 0, 1)
    assert {path.name for path in cache.iterdir()} == {".new", "other"}


def test_collecting_waits_for_no_writer(sqlite_engine: Engine, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "artifacts")
    path = folder.local_path(folder.put([b"orphan"]).sha256)
    old(path)
    with (folder.root / ".lock").open("ab") as writer:
        fcntl.flock(writer, fcntl.LOCK_SH)
        with ThreadPoolExecutor(1) as pool:
            collecting = pool.submit(gc.collect, sqlite_engine, folder)
            try:
                assert collecting.result(20) == (0, 0, 0, 0)
            finally:
                fcntl.flock(writer, fcntl.LOCK_UN)
    assert path.exists()
    assert gc.collect(sqlite_engine, folder) == (1, 0, 0, 0)


def test_nothing_there_is_nothing_to_do(sqlite_engine: Engine, tmp_path: Path) -> None:
    assert gc.collect(sqlite_engine, Folder(tmp_path / "none"), tmp_path / "nor this", tmp_path / "nor that") == (0, 0, 0, 0)
