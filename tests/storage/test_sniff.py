import io
import pickle
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from sparring.contract.specs import DataSpec
from sparring.storage.sniff import HEAD, Malformed, Rejected, Undeclared, Unsafe, sniff_data, sniff_model
from sparring.storage.zips import MAX_DIRECTORY

LEGACY = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e8002") + bytes(40)


def zipped(*names: str, method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name in names:
            file.writestr(name, b"0" * 20)
    return buffer.getvalue()


PT2 = ("model/archive_format", "model/models/model.json", "model/data/weights/weight_0")


def pickled(*names: str) -> bytes:
    """A zip as torch.save writes it, whose pickle looks up these names."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        looked_up = "".join(f"c{name.rpartition('.')[0]}\n{name.rpartition('.')[2]}\n0" for name in names)
        archive.writestr("m/data.pkl", b"\x80\x02" + looked_up.encode() + b"N.")
        archive.writestr("m/version", "3\n")
    return file.getvalue()


STATE = ("archive/data.pkl", "archive/data/0", "archive/version")


@pytest.fixture
def sniffed(tmp_path):
    """`sniffed(sniff, content)`: the answer to a file of this content, whatever its name says."""

    def sniff(how, content: bytes, spec: DataSpec | None = None):
        path = tmp_path / "upload.txt"
        path.write_bytes(content)
        return how(content[:HEAD], path, spec or DataSpec()) if how is sniff_data else how(content[:HEAD], path)

    return sniff


@pytest.mark.parametrize(
    ("content", "format"),
    [
        (zipped(*PT2), "pt2"),
        (zipped(*STATE), "state_dict"),
        (LEGACY, "state_dict"),
        (struct.pack("<Q", 2) + b"{}", "safetensors"),
        (struct.pack("<Q", 20) + b'{"a":{"dtype":"F32"}}' + bytes(9), "safetensors"),
        (b"\x08\x0a\x12\x07pytorch\x1a\x03" + bytes(20), "onnx"),
    ],
)
def test_models_are_told_by_their_bytes(content, format, sniffed):
    assert sniffed(sniff_model, content) == format


def test_a_whole_model_is_told_from_its_weights(sniffed):
    assert sniffed(sniff_model, pickled("collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch.FloatStorage")) == "state_dict"
    for name in ("__main__.Net", "torch.nn.modules.container.Sequential", "os.system"):
        with pytest.raises(Unsafe, match=f"not weights alone .one is a {name}.: opening it would run code") as refused:
            sniffed(sniff_model, pickled("collections.OrderedDict", name))
        assert "sparring export" in refused.value.hint


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"a": 1}, 2),
        pickle.dumps({"a": 1}, 4),
        pickle.dumps({"a": 1}, 5),
        zipped("model/constants.pkl", "model/code/__torch__.py", "model/data.pkl"),
        zipped("model/code/a.py", "model/data.pkl"),
        zipped(*PT2, "model/data/aotinductor/model/a.wrapper.so"),
        zipped("config.json", "metadata.json", "model.weights.h5"),
        b"\x89HDF\r\n\x1a\n" + bytes(100),
    ],
    ids=["pickle 2", "pickle 4", "pickle 5", "torchscript", "torchscript code", "compiled", "keras", "hdf5"],
)
def test_formats_that_run_code_are_refused_with_a_way_out(content, sniffed):
    with pytest.raises(Unsafe) as refused:
        sniffed(sniff_model, content)
    assert refused.value.code == "unsafe_format"
    assert refused.value.message
    assert "sparring export" in refused.value.hint or "Convert" in refused.value.hint


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<!doctype html><html>404</html>",
        b"import os\n",
        b"PK\3\4",
        zipped(*PT2)[:-10],
        zipped(*PT2)[:200],
        zipped(*PT2) + b"!",
        b"PK\3\4" + zipped(*PT2),
        zipped("x.npy"),
        zipped(*PT2, method=zipfile.ZIP_DEFLATED),
        zipped(*STATE, method=zipfile.ZIP_DEFLATED),
        zipped(*PT2, "model/../../etc/passwd"),
        zipped(*PT2, "/etc/passwd"),
        zipped(*PT2, "c:\\windows"),
        zipped(*PT2, "model/folder/"),
        zipped(*PT2, "model/ARCHIVE_FORMAT"),
        struct.pack("<Q", 2**40) + b"{}",
        bytes(range(128, 256)),
        b"\x80",
        b"\x7fELF" + bytes(100),
        b"PK\5\6" + bytes(18),
    ],
)
def test_what_is_no_model_is_refused(content, sniffed):
    with pytest.raises(Malformed) as refused:
        sniffed(sniff_model, content)
    assert refused.value.code == "malformed"
    assert isinstance(refused.value, ValueError)


@pytest.mark.parametrize("names", [("x.npy",), ("x.npy", "y.npy"), ("y.npy", "x.npy")])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_datasets_are_told_by_their_members(names, method, sniffed):
    assert sniffed(sniff_data, zipped(*names, method=method)) == "npz"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "empty"),
        (b"\x93NUMPY\x01\0", ".npz archive"),
        (b"a,b\n1,2\n", "no .npz archive"),
        (zipped("y.npy"), "no array x"),
        (zipped("x.npy", "y.npy", "z.npy"), "z.npy"),
        (zipped("x.npy")[:-1], "cut off"),
        (zipped(*STATE), "no array x"),
    ],
)
def test_what_is_no_dataset_is_refused_with_the_way_to_write_one(content, told, sniffed):
    with pytest.raises(Malformed) as refused:
        sniffed(sniff_data, content)
    assert told in refused.value.message + refused.value.hint


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_numbers_that_nobody_declared_bounds_of_are_refused(save, sniffed):
    def saved(dtype: str) -> bytes:
        save(file := io.BytesIO(), x=np.zeros((2, 3), dtype))
        return file.getvalue()

    assert sniffed(sniff_data, saved("u1")) == "npz"
    for dtype, spec in (("<f4", None), (">f8", None), ("i2", None), ("u1", DataSpec(scale=1.0))):
        with pytest.raises(Undeclared, match=f"x holds {dtype.lstrip('<>')} values, whose lowest and highest legal value") as refused:
            sniffed(sniff_data, saved(dtype), spec)
        assert "0,1 for images" in refused.value.hint
        assert sniffed(sniff_data, saved(dtype), DataSpec(bounds="none")) == "npz"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_unpacks_without_measure_is_not_unpacked(method, sniffed):
    with pytest.raises(Malformed, match="compressed in a way"):
        sniffed(sniff_data, zipped("x.npy", method=method))


@pytest.mark.parametrize("descr", ["<U3", "|S3", "<c8", "|O"])
def test_what_is_no_number_is_left_to_the_worker(descr, sniffed):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00v\x00{'descr': '" + descr.encode() + b"', 'fortran_order': False, 'shape': (2,), }")
    assert sniffed(sniff_data, file.getvalue()) == "npz"


def test_a_pickled_dataset_is_refused(sniffed):
    with pytest.raises(Unsafe):
        sniffed(sniff_data, pickle.dumps([1, 2]))


def test_an_encrypted_or_doubled_member_is_refused(sniffed):
    content = bytearray(zipped("x.npy", "y.npy"))
    content[content.index(b"PK\1\2") + 8] |= 1
    with pytest.raises(Malformed, match="encrypted"):
        sniffed(sniff_data, bytes(content))
    content = zipped("x.npy", "y.npy").replace(b"y.npy", b"x.npy")
    with pytest.raises(Malformed, match="twice"):
        sniffed(sniff_data, content)


def test_a_directory_of_a_million_members_is_not_read(sniffed):
    """The trailer alone says how long the directory is."""
    length = MAX_DIRECTORY + 1
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, length, 4, 0)
    with pytest.raises(Malformed, match="at most"):
        sniffed(sniff_data, b"PK\3\4" + bytes(length) + end)


def test_messages_never_carry_a_strangers_bytes(sniffed):
    with pytest.raises(Rejected) as refused:
        sniffed(sniff_data, zipped("x.npy", "\x1b[31m<script>\u202e" + "a" * 3000))
    assert refused.value.message.isascii()
    assert "\x1b" not in refused.value.message
    assert len(refused.value.message) < 300


def test_sniffing_needs_neither_torch_nor_numpy():
    program = "import sys; sys.modules['torch'] = sys.modules['numpy'] = None; import sparring.storage.sniff"
    subprocess.run([sys.executable, "-P", "-c", program], check=True)
