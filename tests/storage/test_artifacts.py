import hashlib
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparring.storage import artifacts
from sparring.storage.artifacts import Blob, Folder
from sparring.storage.errors import Corrupt, DigestMismatch, Full, Missing, TooLarge

CONTENT = b"some bytes" * 100
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "artifacts")


def files(folder: Folder) -> list[Path]:
    return [path for path in folder.root.rglob("*") if path.is_file() and path.name != ".lock"]


def damage(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(b"X" + path.read_bytes()[1:])


def test_what_is_put_can_be_read_and_only_read(folder: Folder) -> None:
    blob = folder.put([CONTENT[:7], b"", CONTENT[7:]], sha256=DIGEST)
    assert blob == Blob(DIGEST, len(CONTENT))
    with folder.open(DIGEST) as file:
        assert file.read() == CONTENT
    assert files(folder) == [folder.local_path(DIGEST)]
    assert stat.S_IMODE(folder.local_path(DIGEST).stat().st_mode) == 0o440
    folder.verify(DIGEST)


def test_nothing_is_visible_before_commit_nor_left_without_one(folder: Folder) -> None:
    with folder.writer() as writer:
        writer.write(CONTENT)
        assert not folder.local_path(DIGEST).exists()
    assert files(folder) == []
    with pytest.raises(ValueError, match="thrown away"):
        writer.write(b"more")
    with pytest.raises(ValueError, match="thrown away"):
        writer.commit()


def test_the_same_bytes_from_many_at_once_are_one_blob(folder: Folder) -> None:
    threads = [threading.Thread(target=folder.put, args=([CONTENT],)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert files(folder) == [folder.local_path(DIGEST)]


@pytest.mark.parametrize("limit", [0, len(CONTENT) - 1])
def test_too_large_stops_before_the_rest_is_read(folder: Folder, limit: int) -> None:
    def chunks() -> Iterator[bytes]:
        yield CONTENT
        pytest.fail("read on")

    with pytest.raises(TooLarge, match=str(limit)):
        folder.put(chunks(), limit=limit)
    assert files(folder) == []


def test_exactly_the_limit_is_allowed(folder: Folder) -> None:
    assert folder.put([CONTENT], limit=len(CONTENT)).size == len(CONTENT)


def test_other_bytes_than_announced_leave_nothing(folder: Folder) -> None:
    with pytest.raises(DigestMismatch, match=DIGEST):
        folder.put([CONTENT], sha256="0" * 64)
    assert files(folder) == []


def test_a_source_that_breaks_off_leaves_nothing(folder: Folder) -> None:
    def chunks() -> Iterator[bytes]:
        yield CONTENT
        raise ConnectionResetError("client went away")

    with pytest.raises(ConnectionResetError):
        folder.put(chunks())
    assert files(folder) == []


def test_long_work_is_watched_and_can_be_stopped(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "CHUNK", 100)
    watched: list[int] = []

    def watch() -> None:
        watched.append(1)
        if len(watched) == 3:
            raise InterruptedError

    folder.put([CONTENT])
    with pytest.raises(InterruptedError):
        folder.verify(DIGEST, watch)
    watched.clear()
    with pytest.raises(InterruptedError):
        folder.put([b"new"] * 10, watch=watch)
    watched.clear()
    with pytest.raises(InterruptedError):  # while it is compared with what is there
        folder.put([CONTENT], watch=watch)
    assert len(watched) == 3
    assert files(folder) == [folder.local_path(DIGEST)]


def test_large_blobs_are_made_durable_on_the_way(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(artifacts, "_SYNC", 10)
    monkeypatch.setattr(os, "fdatasync", synced.append)
    folder.put([b"12345"] * 5)
    assert len(synced) == 2


def test_a_changed_blob_is_found_and_mended_by_storing_it_again(folder: Folder) -> None:
    folder.put([CONTENT])
    damage(folder.local_path(DIGEST))
    with pytest.raises(Corrupt, match=DIGEST):
        folder.verify(DIGEST)
    folder.put([CONTENT])
    folder.verify(DIGEST)
    assert files(folder) == [folder.local_path(DIGEST)]


@pytest.mark.parametrize("sha256", ["../../etc/passwd", "", DIGEST.upper(), DIGEST + "0", "0" * 64])
def test_what_is_not_there_is_missing(folder: Folder, sha256: str) -> None:
    with pytest.raises(Missing):
        folder.open(sha256)
    with pytest.raises(Missing):
        folder.verify(sha256)


def test_a_full_disk_leaves_nothing_and_what_was_there_stays(folder: Folder) -> None:
    """A limit on the size of files stands in for the disk: the kernel refuses the write halfway through."""
    folder.put([CONTENT])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(Full, match="free some space"):
            folder.put([b"y" * 600, b"y" * 600])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, previous)
    assert files(folder) == [folder.local_path(DIGEST)]
    assert folder.put([b"y" * 1200]).size == 1200


def test_a_full_disk_in_truth(tmp_path: Path) -> None:
    mounted = tmp_path / "small"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mounted)]
    if os.geteuid() != 0 or not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a file system of its own cannot be mounted here")
    try:
        folder = Folder(mounted / "artifacts")
        folder.put([CONTENT])
        with pytest.raises(Full):
            folder.put([b"y" * 30_000] * 4)
        assert files(folder) == [folder.local_path(DIGEST)]
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def test_what_a_killed_writer_leaves_is_swept_when_it_is_old(folder: Folder) -> None:
    code = "import sys, os, pathlib; from sparring.storage.artifacts import Folder\n"
    code += "Folder(pathlib.Path(sys.argv[1])).writer().write(b'half'); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, str(folder.root)]).returncode == -signal.SIGKILL
    (left,) = files(folder)
    assert folder.sweep(60) == 0
    os.utime(left, (1, 1))
    assert folder.sweep(60) == 1
    assert files(folder) == []


def test_storing_again_keeps_an_old_blob_from_the_collector(folder: Folder) -> None:
    kept, gone = folder.put([b"kept"]), folder.put([b"gone"])
    for blob in (kept, gone):
        os.utime(folder.local_path(blob.sha256), (1, 1))
    folder.put([b"kept"])
    assert folder.delete_unless(set(), 3600) == 1
    assert files(folder) == [folder.local_path(kept.sha256)]
    assert folder.delete_unless({kept.sha256}, 0) == 0


def test_delete(folder: Folder) -> None:
    folder.put([CONTENT])
    folder.delete(DIGEST)
    folder.delete(DIGEST)
    assert files(folder) == []
