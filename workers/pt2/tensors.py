"""Weights from raw bytes: a view is made only after every index it can reach was found inside the record."""

import math

import torch

from sparring.workers.errors import Refused
from sparring.workers.pt2.archive import Archive, malformed
from sparring.workers.pt2.schema import STRIDED, Payload, PayloadConfig, TensorMeta, parse

CONFIGS = {"weights": "data/weights/model_weights_config.json", "constants": "data/constants/model_constants_config.json"}
MAX_JSON = 16 << 20


def read_tensors(archive: Archive, folder: str) -> dict[str, torch.Tensor]:
    """All tensors of `weights` or `constants` by name: parameters and buffers; tied ones are one object.

    Raises Refused for pickled payloads, views beyond their record, and types that are not read.
    """
    record = CONFIGS[folder]
    config = parse(PayloadConfig, archive.read(record, MAX_JSON), record).config
    made: dict[tuple[str, str], torch.Tensor] = {}
    result = {}
    for name, payload in config.items():
        key = payload.path_name, payload.tensor_meta.model_dump_json()
        if key not in made:
            made[key] = _read(archive, folder, name, payload)
        result[name] = made[key]
    return result


def _read(archive: Archive, folder: str, name: str, payload: Payload) -> torch.Tensor:
    if payload.use_pickle:
        message = f"{folder[:-1]} {name!a} is stored as a pickle; it is never opened"
        raise Refused("bad_model", message, hint="Plain dense tensors are stored raw by torch.export.save.", detail="unsafe_format")
    tensor = view(archive.read(f"data/{folder}/{payload.path_name}"), payload.tensor_meta, name)
    if not payload.is_param:
        return tensor
    return torch.nn.Parameter(tensor, requires_grad=payload.tensor_meta.requires_grad and tensor.is_floating_point())


def view(content: bytearray, meta: TensorMeta, name: str) -> torch.Tensor:
    """A tensor of its own from a record's bytes. Raises Refused unless the whole view lies inside the record."""
    dtype = meta.torch_dtype
    if meta.layout != STRIDED:
        raise Refused("unsupported", f"tensor {name!a} is not dense", hint="Store dense tensors.", detail="layout")
    sizes, strides = [_number(size.as_int, name) for size in meta.sizes], [_number(size.as_int, name) for size in meta.strides]
    offset = _number(meta.storage_offset.as_int, name)
    if len(sizes) != len(strides) or len(content) % dtype.itemsize:
        raise malformed(f"tensor {name!a} does not fit its record")
    available, count = len(content) // dtype.itemsize, math.prod(sizes)
    if count == 0:
        return torch.empty(sizes, dtype=dtype)
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if count > available or last >= available:
        raise malformed(f"tensor {name!a} of shape {sizes} reaches beyond its record of {available} elements")
    return torch.as_strided(torch.frombuffer(content, dtype=dtype), sizes, strides, offset).clone()


def _number(size: int | None, name: str) -> int:
    if size is None:
        raise malformed(f"tensor {name!a} has a symbolic shape")
    return size
