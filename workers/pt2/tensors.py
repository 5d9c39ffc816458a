"""Weights from raw bytes: a view is made only after every index it can reach was found inside the record."""

import math
from collections.abc import Collection

import torch

from sparring.workers.errors import Refused
from sparring.workers.pt2.archive import Archive, malformed
from sparring.workers.pt2.schema import STRIDED, Payload, PayloadConfig, TensorMeta, parse

CONFIGS = {"weights": "data/weights/model_weights_config.json", "constants": "data/constants/model_constants_config.json"}
TIES = 8
"""All tensors of a folder, name by name, may be so many times as large as what is stored of them: tied weights have several names."""


def read_tensors(archive: Archive, folder: str, wanted: Collection[str]) -> dict[str, torch.Tensor]:
    """Those tensors of `weights` or `constants` that are `wanted`, by name: parameters and buffers.

    Every record is read once: tied tensors are one object, and different views of one record share its memory. Names that
    are not wanted are left unread: torch.export writes such for aliases and unused layers.

    Raises Refused for pickled payloads, views beyond their record, names that multiply what is stored, and types that are
    not read.
    """
    record = CONFIGS[folder]
    config = parse(PayloadConfig, archive.json(record), record).config
    if pickled := next((name for name, payload in config.items() if payload.use_pickle), None):
        message = f"{folder[:-1]} {pickled!a} is stored as a pickle; it is never opened"
        raise Refused("bad_model", message, hint="Plain dense tensors are stored raw by torch.export.save.", detail="unsafe_format")
    records: dict[str, torch.Tensor] = {}
    made: dict[str, torch.Tensor] = {}
    result = {}
    for name, payload in config.items():
        if name not in wanted:
            continue
        if payload.path_name not in records:
            records[payload.path_name] = _bytes(archive.read(f"data/{folder}/{payload.path_name}"))
        key = payload.model_dump_json()
        if key not in made:
            made[key] = _tensor(records[payload.path_name], payload, name)
        result[name] = made[key]
    stored, named = sum(content.nbytes for content in records.values()), sum(tensor.nbytes for tensor in result.values())
    if named > TIES * stored:
        message = f"the {folder} would be {named} bytes, but only {stored} are stored: too many names share a record"
        raise Refused("bad_model", message, hint="Export the model with `sparring export`.", detail="tensor_too_large")
    return result


def _bytes(content: bytearray) -> torch.Tensor:
    """In memory that torch has aligned: kernels compute the same last bits on it as in the original."""
    return torch.frombuffer(content, dtype=torch.uint8).clone() if content else torch.empty(0, dtype=torch.uint8)


def _tensor(content: torch.Tensor, payload: Payload, name: str) -> torch.Tensor:
    tensor = view(content, payload.tensor_meta, name)
    if not payload.is_param:
        return tensor
    return torch.nn.Parameter(tensor, requires_grad=payload.tensor_meta.requires_grad and tensor.is_floating_point())


def view(content: torch.Tensor, meta: TensorMeta, name: str) -> torch.Tensor:
    """A view of a record's bytes (uint8). Raises Refused unless all of it lies inside the record."""
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
    return torch.as_strided(content.view(dtype), sizes, strides, offset)


def _number(size: int | None, name: str) -> int:
    if size is None:
        raise malformed(f"tensor {name!a} has a symbolic shape")
    return size
