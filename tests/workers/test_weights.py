import io
import json
import pickle
import struct
import zipfile
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from sparring.workers.errors import Refused
from sparring.workers.weights import load_strictly, read_safetensors, read_state_dict

STATE = {"a.weight": torch.arange(12.0).reshape(3, 4), "a.bias": torch.zeros(3), "steps": torch.tensor(5)}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("legacy", [False, True])
def test_both_formats_of_torch_save_are_read(legacy, tmp_path):
    torch.save(OrderedDict(STATE), tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    assert same(read_state_dict(tmp_path / "w.pt"), STATE)


@pytest.mark.parametrize(
    "wrap", [lambda s: {"state_dict": s, "epoch": 3}, lambda s: {f"module.{name}": value for name, value in s.items()}]
)
def test_checkpoints_and_data_parallel_are_unwrapped(wrap, tmp_path):
    torch.save(wrap(STATE), tmp_path / "w.pt")
    assert same(read_state_dict(tmp_path / "w.pt"), STATE)


def test_safetensors_are_read(tmp_path):
    save_file(STATE, tmp_path / "w.safetensors")
    assert same(read_safetensors(tmp_path / "w.safetensors"), STATE)


def detail(read, path) -> str:
    with pytest.raises(Refused) as refused:
        read(path)
    assert refused.value.reason.hint
    return refused.value.reason.detail


class Evil:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        import os

        return os.mkdir, (self.path,)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrap", [lambda evil: evil, lambda evil: {"w": evil}, lambda evil: {**STATE, "w": [evil]}])
def test_pickles_are_refused_unopened(wrap, legacy, tmp_path):
    torch.save(wrap(Evil(tmp_path / "canary")), tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    assert detail(read_state_dict, tmp_path / "w.pt") == "unsafe_format"
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_whole_module_is_refused_with_the_way_to_export_it(legacy, tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(Refused, match="sparring export") as refused:
        read_state_dict(tmp_path / "w.pt")
    assert refused.value.reason.detail == "unsafe_format"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"w": torch.zeros(1).expand(10**12)}, "tensor_too_large"),
        ({"w": torch.zeros(3, 3).to_sparse()}, "layout"),
        ({"w": torch.zeros(3, dtype=torch.complex64)}, "dtype"),
        ({"w": torch.zeros(2, 2), "b": 3}, "malformed"),
        ({3: torch.zeros(2, 2)}, "malformed"),
        ({}, "malformed"),
        (torch.zeros(3), "malformed"),
        ([torch.zeros(3)], "malformed"),
    ],
    ids=["expanded", "sparse", "complex", "number", "key", "empty", "tensor", "list"],
)
def test_what_is_no_plain_state_dict_is_refused(content, expected, tmp_path):
    torch.save(content, tmp_path / "w.pt")
    assert detail(read_state_dict, tmp_path / "w.pt") == expected


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # quantisation is on its way out of torch
def test_quantised_tensors_are_refused(tmp_path):
    torch.save({"w": torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8)}, tmp_path / "w.pt")
    assert detail(read_state_dict, tmp_path / "w.pt") in ("layout", "unsafe_format")


def _state() -> bytes:
    buffer = io.BytesIO()
    torch.save(STATE, buffer)
    return buffer.getvalue()


def _deflated() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(_state())) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        _state()[:-30],
        _state()[:200],
        _state() + b"\0",
        _deflated(),
        b"",
        b"\x80\x02",
        bytes.fromhex("80028a0a6cfc9c46f9206aa850192e") + b"\x80",
        pickle.dumps(3),
    ],
    ids=["cut", "cut short", "followed", "deflated", "empty", "stub", "legacy stub", "number"],
)
def test_damaged_state_dicts_are_refused(content, tmp_path):
    (tmp_path / "w.pt").write_bytes(content)
    assert detail(read_state_dict, tmp_path / "w.pt") in ("malformed", "unsafe_format")


def _header(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


GOOD = save(STATE)
ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        GOOD[:-1],
        GOOD + b"\0",
        struct.pack("<Q", 2**63) + b"{",
        _header(b"{"),
        _header({"a": ENTRY, "b": ENTRY}, bytes(4)),
        _header({"a": {**ENTRY, "shape": [2**62, 8]}}, bytes(4)),
        _header({"a": {**ENTRY, "data_offsets": [0, 400]}}, bytes(4)),
        _header({"a": {**ENTRY, "dtype": "F33"}}, bytes(4)),
        _header({}),
    ],
    ids=["empty", "cut", "followed", "header too large", "json", "overlap", "overflow", "beyond", "dtype", "nothing"],
)
def test_malformed_safetensors_are_refused(content, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(content)
    assert detail(read_safetensors, tmp_path / "w.safetensors") == "malformed"


def test_differences_are_listed_and_cut():
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    state = {"0.weight": torch.zeros(3, 5), "0.bias": torch.zeros(3), "extra": torch.zeros(2)}
    with pytest.raises(Refused) as refused:
        load_strictly(module, state)
    message = refused.value.reason.message
    assert "0.weight has shape (3, 5) instead of (3, 4)" in message
    assert "unknown 'extra' (2,)" in message
    assert "missing 1.running_var (3,)" in message
    assert "num_batches_tracked" not in message
    with pytest.raises(Refused, match="and 93 more differences"):
        load_strictly(module, {f"extra{number}": torch.zeros(1) for number in range(99)})


def test_weights_are_copied_and_old_checkpoints_lack_counters():
    with torch.device("meta"):
        module = nn.BatchNorm1d(2)
    state = {"weight": torch.ones(2), "bias": torch.zeros(2), "running_mean": torch.zeros(2), "running_var": torch.ones(2)}
    load_strictly(module, state)
    state["weight"].fill_(9)
    assert module.weight.tolist() == [1, 1]
    assert module.num_batches_tracked.item() == 0
    assert module.weight.requires_grad
