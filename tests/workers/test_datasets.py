import hashlib
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from sparring.contract.specs import DataSpec
from sparring.workers import unpacking
from sparring.workers.datasets import check, open_dataset, unpack
from sparring.workers.errors import Refused

SHA = "ab" * 32
IMAGES = np.arange(4 * 1 * 3 * 3, dtype=np.uint8).reshape(4, 1, 3, 3)


@pytest.fixture
def opened(tmp_path):
    """`opened(spec, x=…, y=…)`: these arrays, uploaded, unpacked and opened."""

    def build(spec=None, write=np.savez, **arrays):
        write(tmp_path / "data.npz", **arrays)
        return open_dataset(unpack(tmp_path / "data.npz", tmp_path / "cache", SHA), spec or DataSpec())

    return build


@pytest.fixture
def refused(tmp_path):
    """`refused(call)`: the reason of the refusal, which must have a hint."""

    def reason(call, *args, **named):
        with pytest.raises(Refused) as caught:
            call(*args, **named)
        assert caught.value.reason.hint
        return caught.value.reason

    return reason


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_bytes_become_numbers_between_0_and_1(write, opened):
    pixels = np.arange(256, dtype=np.uint8).reshape(2, 1, 8, 16)
    data = opened(write=write, x=pixels, y=np.array([0, 1]))
    check(data, 2)
    assert (data.spec.bounds, data.spec.scale, data.spec.layout) == ((0, 1), 1 / 255, "NCHW")
    assert (data.shape, data.row_shape, data.dtype, len(data)) == ((2, 1, 8, 16), (1, 8, 16), "uint8", 2)
    assert data.labels.tolist() == [0, 1]
    assert data.labels.dtype == np.int64
    rows = data.rows(range(2))
    assert rows.dtype == torch.float32
    assert torch.equal(rows, torch.from_numpy(pixels).float() / 255)


def test_rows_come_in_the_order_of_the_index(opened):
    data = opened(x=IMAGES)
    assert data.labels is None
    everything = data.rows(range(4))
    assert torch.equal(data.rows(torch.tensor([3, 0, 3])), everything[[3, 0, 3]])
    assert torch.equal(data.rows(range(1, 3)), everything[1:3])


@pytest.mark.parametrize("dtype", ["i1", "u2", "<i2", ">i2", "i4", "i8", "u4", "u8", "f2", "f4", "f8", ">f4", "b1"])
def test_every_plain_type_is_read(dtype, opened):
    x = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    data = opened(DataSpec(bounds="none", scale=0.5), x=x)
    assert torch.equal(data.rows(range(2)), torch.from_numpy(x.astype(np.float32)) * 0.5)


def test_signed_bytes_keep_their_sign(opened):
    x = np.array([[-128, -1, 0, 127]], dtype=np.int8)
    assert opened(DataSpec(bounds=(-128, 127)), x=x).rows(range(1)).tolist() == [[-128, -1, 0, 127]]


def test_columns_first_arrays_are_read_right(opened):
    x = np.asfortranarray(np.random.default_rng(0).random((5, 2, 3)))
    rows = opened(DataSpec(bounds=(0, 1)), x=x).rows(range(5))
    assert torch.equal(rows, torch.from_numpy(x.astype(np.float32, order="C")))


def test_numbers_without_declared_bounds_are_refused(opened, refused):
    told = refused(opened, x=np.zeros((2, 3), np.float32))
    assert (told.code, told.detail) == ("bad_data", "bounds_undeclared")
    assert refused(opened, DataSpec(scale=1.0), x=IMAGES).detail == "bounds_undeclared"


def test_bounds_none_allows_any_number(opened):
    data = opened(DataSpec(bounds="none"), x=np.array([[1e30, -1e30]], np.float32))
    check(data, 2)
    assert data.bounds is None


def test_a_value_outside_the_bounds_is_named_and_never_clipped(opened, refused):
    x = np.full((300, 2, 2), 0.5, np.float32)
    x[271, 1, 0] = 1.5
    data = opened(DataSpec(bounds=(0, 1)), x=x)
    told = refused(check, data, 2)
    assert (told.detail, told.message) == ("out_of_bounds", "row 271 at [1, 0] is 1.5, outside the bounds [0, 1]")
    assert refused(data.rows, torch.tensor([3, 271])).message == told.message
    check(data, 2, 271)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("bounds", [(0, 1), "none"])
def test_a_value_that_is_no_number_is_named(value, bounds, opened, refused):
    x = np.zeros((9, 2), np.float64)
    x[7, 1] = value
    told = refused(check, opened(DataSpec(bounds=bounds), x=x), 2)
    assert told.detail == "not_finite"
    assert "row 7 at [1]" in told.message


def test_a_number_too_large_for_float32_is_named(opened, refused):
    with np.errstate(over="ignore"):
        assert refused(check, opened(DataSpec(bounds="none"), x=np.array([[1e300]])), 2).detail == "not_finite"


def test_bounds_are_those_of_float32(opened):
    check(opened(DataSpec(bounds=(0, 0.1)), x=np.array([[0.1]], np.float32)), 2)


def test_checking_takes_little_memory(opened):
    data = opened(x=np.zeros((200, 1 << 20), np.uint8))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    check(data, 2)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 700 << 10


@pytest.mark.parametrize(
    ("y", "detail", "told"),
    [
        (np.array([0, 1, 2, -1]), "labels_out_of_range", "row 3 has label -1"),
        (np.array([0, 1, 2, 2**40]), "labels_out_of_range", "row 3"),
        (np.array([0.0, 1, 2, 1]), "label_type", "astype"),
        (np.array([True, False, True, False]), "label_type", "astype"),
        (np.eye(4), "shape_mismatch", "argmax"),
        (np.zeros((4, 1), int), "shape_mismatch", "y[:, 0]"),
        (np.zeros(3, int), "shape_mismatch", "4 rows"),
        (np.array(1), "shape_mismatch", "one label for each row"),
    ],
)
def test_labels_that_are_no_classes_are_refused(y, detail, told, opened, refused):
    reason = refused(opened, x=IMAGES, y=y)
    assert reason.detail == detail
    assert told in reason.message + reason.hint


def test_labels_beyond_the_models_classes_are_named(opened, refused):
    data = opened(x=IMAGES, y=np.array([0, 9, 10, 3]))
    check(data, 11)
    check(data, 10, 2)
    told = refused(check, data, 10)
    assert (told.detail, told.message) == ("labels_out_of_range", "row 2 has label 10, but the model has 10 classes")


@pytest.mark.parametrize(
    ("x", "detail"),
    [(np.zeros(5, np.uint8), "shape_mismatch"), (np.zeros((0, 3), np.uint8), "empty"), (np.zeros((3, 0), np.uint8), "empty")],
)
def test_data_without_rows_are_refused(x, detail, opened, refused):
    assert refused(opened, x=x).detail == detail


class Evil:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        import os

        return os.mkdir, (self.path,)


def test_object_arrays_are_refused_unopened(tmp_path, opened, refused):
    x = np.empty(1, object)
    x[0] = Evil(tmp_path / "canary")
    assert refused(opened, x=x).detail in ("unsafe_format", "malformed")
    assert not (tmp_path / "canary").exists()


def test_a_pickle_beside_the_data_is_refused_unopened(tmp_path, refused):
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as file:
        file.writestr("x.npy", pickle.dumps(Evil(tmp_path / "canary")))
    assert refused(unpack, tmp_path / "d.npz", tmp_path / "cache", SHA).detail == "malformed"
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "x", [np.zeros(3, "c8"), np.zeros(3, "S4"), np.zeros(3, "U4"), np.zeros(3, "M8[s]"), np.zeros(3, [("a", "f4")]), np.zeros(3, "V3")]
)
def test_other_types_are_refused(x, opened, refused):
    assert refused(opened, x=x).detail == "dtype"


def _npy(header: object, data: bytes = b"", version: bytes = b"\1\0") -> bytes:
    text = header if isinstance(header, bytes) else repr(header).encode()
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + data


def _head(shape, descr="|u1"):
    return {"descr": descr, "fortran_order": False, "shape": shape}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUM",
        b"hello",
        _npy(_head((1 << 40, 1)), bytes(4)),
        _npy(_head((2, 3)), bytes(5)),
        _npy(_head((2, 3)), bytes(7)),
        _npy(_head((-2, -3)), bytes(6)),
        _npy(_head((2, -3)), bytes(6)),
        _npy(_head((10**12,), "|V0")),
        _npy(_head((2, 3.0)), bytes(6)),
        _npy(_head("abc"), bytes(6)),
        _npy(_head((1,) * 40), bytes(1)),
        _npy(_head((2, 3), "|O"), bytes(48)),
        _npy(_head((2, 3), "__import__('os')"), bytes(6)),
        _npy(b"__import__('os').mkdir('x')", bytes(6)),
        _npy(b"(" * 5000, bytes(6)),
        _npy(b"{" + b" " * 60000 + b"}", bytes(6)),
        _npy({**_head((2, 3)), "more": 1}, bytes(6)),
        _npy(_head((2, 3)), bytes(6), b"\3\0"),
        _npy(_head((2, 3)), bytes(6), b"\x09\0"),
    ],
)
def test_arrays_whose_header_lies_are_refused(content, tmp_path, refused):
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as file:
        file.writestr("x.npy", content)
    told = refused(unpack, tmp_path / "d.npz", tmp_path / "cache", SHA)
    assert told.detail in ("malformed", "dtype", "unsafe_format")
    assert list((tmp_path / "cache").iterdir()) == []


def _add(path: Path, name: str, content: bytes = b"") -> None:
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(name, content)


def _patch(path: Path, offset: int, form: str, *values: int) -> None:
    """Overwrite fields of the first entry of the central directory."""
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, content.index(b"PK\1\2") + offset, *values)
    path.write_bytes(content)


SPOILED = {
    "extra": lambda path: _add(path, "z.npy"),
    "climbing": lambda path: _add(path, "../x.npy"),
    "absolute": lambda path: _add(path, "/x.npy"),
    "case": lambda path: _add(path, "X.npy"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "followed": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "prefixed": lambda path: path.write_bytes(b"GIF89a" + path.read_bytes()),
    "encrypted": lambda path: _patch(path, 8, "<H", 1),
    "lying size": lambda path: _patch(path, 24, "<L", 100),
    "lying sizes": lambda path: _patch(path, 20, "<LL", 1 << 20, 1 << 20),
    "lying method": lambda path: _patch(path, 10, "<H", 8),
    "other method": lambda path: _patch(path, 10, "<H", 14),
    "lying checksum": lambda path: _patch(path, 16, "<L", 1),
}


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("spoil", SPOILED)
def test_archives_that_lie_are_refused(spoil, write, tmp_path, refused):
    if (spoil, write) == ("lying method", np.savez_compressed):
        write = np.savez
    write(tmp_path / "d.npz", x=IMAGES)
    SPOILED[spoil](tmp_path / "d.npz")
    assert refused(unpack, tmp_path / "d.npz", tmp_path / "cache", SHA).detail == "malformed"


def test_a_damaged_array_is_never_published(tmp_path, refused):
    np.savez(tmp_path / "d.npz", x=np.zeros((3 << 20, 1), np.uint8))
    content = bytearray((tmp_path / "d.npz").read_bytes())
    content[-4000] ^= 1
    (tmp_path / "d.npz").write_bytes(content)
    assert refused(unpack, tmp_path / "d.npz", tmp_path / "cache", SHA).detail == "malformed"
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, refused):
    np.savez_compressed(tmp_path / "d.npz", x=np.zeros((128 << 20, 1), np.uint8))
    assert refused(unpack, tmp_path / "d.npz", tmp_path / "cache", SHA).detail == "too_large"


def test_a_bomb_that_lies_about_its_size_is_stopped(tmp_path, refused):
    """Directory and header declare 100 bytes; the stream would give 32 MiB."""
    path = tmp_path / "d.npz"
    np.savez_compressed(path, x=np.zeros((32 << 20, 1), np.uint8))
    content = bytearray(path.read_bytes())
    struct.pack_into("<Q", content, 30 + 5 + 4, 100)
    struct.pack_into("<L", content, content.rindex(b"PK\1\2") + 24, 100)
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert refused(unpack, path, tmp_path / "cache", SHA).detail == "malformed"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10


def test_unpacking_happens_once(tmp_path, monkeypatch):
    np.savez(tmp_path / "d.npz", x=IMAGES, y=np.zeros(4, int))
    first = unpack(tmp_path / "d.npz", tmp_path / "cache", SHA)
    (tmp_path / "d.npz").unlink()
    assert unpack(tmp_path / "d.npz", tmp_path / "cache", SHA) == first
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == [SHA]


@pytest.mark.parametrize("spoil", ["short", "missing", "changed", "record", "old record", "empty"])
def test_a_broken_cache_is_made_again(spoil, tmp_path):
    np.savez(tmp_path / "d.npz", x=IMAGES)
    x = unpack(tmp_path / "d.npz", tmp_path / "cache", SHA).x
    record = x.with_name(unpacking.RECORD)
    {
        "short": lambda: x.write_bytes(x.read_bytes()[:-1]),
        "missing": x.unlink,
        "changed": lambda: x.write_bytes(x.read_bytes()[:-1] + b"!"),
        "old record": lambda: record.write_text(json.dumps({"x.npy": x.stat().st_size})),
        "record": lambda: record.write_text("{"),
        "empty": lambda: (x.unlink(), record.unlink()),
    }[spoil]()
    assert np.array_equal(np.load(unpack(tmp_path / "d.npz", tmp_path / "cache", SHA).x), IMAGES)
    assert json.loads(record.read_text()) == {"x.npy": {"size": x.stat().st_size, "sha256": sha256(x.read_bytes()).hexdigest()}}


def test_a_cache_that_changed_is_noticed_by_every_process_that_verifies(tmp_path, monkeypatch):
    np.savez(tmp_path / "d.npz", x=IMAGES)
    x = unpack(tmp_path / "d.npz", tmp_path / "cache", SHA).x
    status, content = x.stat(), x.read_bytes()
    x.write_bytes(content[:-1] + b"!")
    os.utime(x, ns=(status.st_atime_ns, status.st_mtime_ns))  # as when the disk changes a bit: no time tells
    spoiled = np.load(unpack(tmp_path / "d.npz", tmp_path / "cache", SHA, verify=False).x)
    assert not np.array_equal(spoiled, IMAGES)
    monkeypatch.setattr(unpacking, "_read", set())  # as in a new process
    assert np.array_equal(np.load(unpack(tmp_path / "d.npz", tmp_path / "cache", SHA).x), IMAGES)
    assert x.read_bytes() == content


def test_the_cache_is_read_once_in_a_process(tmp_path, monkeypatch):
    np.savez(tmp_path / "d.npz", x=IMAGES, y=np.zeros(4, int))
    digest, read = hashlib.file_digest, []
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: (read.append(Path(file.name).name), digest(file, name))[1])
    for _ in range(3):
        unpack(tmp_path / "d.npz", tmp_path / "cache", SHA)
    assert sorted(read) == ["x.npy", "y.npy"]


def test_several_processes_unpack_at_once(tmp_path):
    x = np.random.default_rng(0).integers(0, 255, (500, 1000), dtype=np.uint8)
    np.savez_compressed(tmp_path / "d.npz", x=x)
    program = "import sys; from pathlib import Path; from sparring.workers.datasets import unpack; input()\n"
    program += "unpack(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])"
    command = [sys.executable, "-P", "-c", program, tmp_path / "d.npz", tmp_path / "cache", SHA]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        process.stdin.write(b"\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0] * 3
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == [SHA]
    assert np.array_equal(np.load(tmp_path / "cache" / SHA / "x.npy"), x)


def test_a_digest_that_is_no_digest_never_becomes_a_path(tmp_path):
    with pytest.raises(ValueError, match="not a sha256"):
        unpack(tmp_path / "d.npz", tmp_path / "cache", "../../etc")


def test_mnist_is_read_as_published(mnist_npz, tmp_path):
    data = open_dataset(unpack(mnist_npz, tmp_path, SHA), DataSpec())
    check(data, 10)
    assert data.shape == (10000, 1, 28, 28)
    assert np.bincount(data.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
