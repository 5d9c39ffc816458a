"""Bare weights: safetensors, or a state dict as torch.save writes it; both read as data, both into plain dense tensors."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from sparring.storage.zips import Rejected, directory, verify
from sparring.workers.errors import Refused, shown

DTYPES = frozenset(
    {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
)
MAX_ELEMENTS = 2**31
"""Numbers in all tensors together."""
HINT = "Write the weights with torch.save(model.state_dict(), path) or safetensors.torch.save_file(model.state_dict(), path)."
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which training scripts put the state dict."""

State = dict[str, torch.Tensor]


def read_safetensors(path: Path) -> State:
    """Tensors by name. Raises Refused (malformed, dtype, too_large)."""
    try:
        state = load_file(path)
    except (SafetensorError, KeyError, OSError, ValueError, RuntimeError) as error:
        raise Refused("bad_model", f"not a sound safetensors file: {str(error)[:300]}", hint=HINT, detail="malformed") from error
    return _plain(state)


def read_state_dict(path: Path) -> State:
    """Tensors by name, from a zip of torch.save or from its format before torch 1.6.

    Loaded with weights_only: anything but tensors in plain containers is refused unopened. Raises Refused (malformed,
    unsafe_format, dtype, layout, tensor_too_large, too_large).
    """
    if zipfile.is_zipfile(path):
        try:
            members = directory(path)
            verify(path, members)
        except Rejected as error:
            raise Refused("bad_model", error.message, hint=error.hint or HINT, detail=error.code) from error
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        message = "the file holds more than tensors; opening it would run code"
        hint = f"{HINT} A whole model is uploaded as a graph: `sparring export`."
        raise Refused("bad_model", message, hint=hint, detail="unsafe_format") from error
    except Exception as error:  # what a damaged pickle raises has no common class
        message = f"not a sound state dict: {type(error).__name__}: {str(error).strip()[:300]}"
        raise Refused("bad_model", message, hint=HINT, detail="malformed") from error
    return _plain(_unwrapped(loaded))


def load_strictly(module: torch.nn.Module, state: State) -> None:
    """Give a module, built on the meta device, its weights: copies of `state` in their own dtype.

    Raises Refused with the list of differences in names and shapes (`shape_mismatch`).
    """
    own = module.state_dict()
    expected = {name for name in own if not name.endswith("num_batches_tracked")}
    differences = [
        f"{name} has shape {tuple(tensor.shape)} instead of {tuple(own[name].shape)}"
        for name, tensor in state.items()
        if name in own and own[name].shape != tensor.shape
    ]
    differences += [f"missing {name} {tuple(own[name].shape)}" for name in own if name in expected - state.keys()]
    differences += [f"unknown {shown(name)} {tuple(tensor.shape)}" for name, tensor in state.items() if name not in own]
    if differences:
        more = f" and {len(differences) - 12} more differences" if len(differences) > 12 else ""
        message = f"the weights do not fit the architecture: {'; '.join(differences[:12])}{more}"
        hint = "Choose the architecture the weights were trained with, or export the model as a graph with `sparring export`."
        raise Refused("bad_model", message, hint=hint, detail="shape_mismatch")
    # checkpoints older than the counters of batch norm lack them; nothing is computed from them
    counters = {name: torch.zeros((), dtype=torch.int64) for name in own.keys() - state.keys()}
    module.load_state_dict({**counters, **{name: tensor.clone() for name, tensor in state.items()}}, assign=True)


def _unwrapped(loaded: object) -> object:
    """The state dict inside a checkpoint that holds it under a customary key."""
    if isinstance(loaded, Mapping):
        inner = [key for key in _WRAPPERS if isinstance(loaded.get(key), Mapping)]
        if len(inner) == 1:
            return loaded[inner[0]]
    return loaded


def _plain(loaded: object) -> State:
    """Check that there are dense tensors under string names and nothing else; drop the prefix of DataParallel."""
    if not isinstance(loaded, Mapping) or not loaded:
        raise Refused("bad_model", f"the file holds {type(loaded).__name__}, not a state dict", hint=HINT, detail="malformed")
    state: State = {}
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            message = f"the entry {shown(name)} is {type(tensor).__name__}, not a tensor"
            raise Refused("bad_model", message, hint=HINT, detail="malformed")
        _check(name, tensor)
        state[name] = tensor.detach()
    if sum(tensor.numel() for tensor in state.values()) > MAX_ELEMENTS:
        raise Refused("bad_model", f"the model has more than {MAX_ELEMENTS} numbers", hint="Upload a smaller model.", detail="too_large")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return state


def _check(name: str, tensor: torch.Tensor) -> None:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested or tensor.device.type != "cpu":
        raise Refused("bad_model", f"tensor {shown(name)} is not a plain dense tensor", hint=HINT, detail="layout")
    if tensor.dtype not in DTYPES:
        raise Refused("unsupported", f"tensor {shown(name)} is of type {tensor.dtype}", hint="Use float32.", detail="dtype")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        message = f"tensor {shown(name)} of shape {tuple(tensor.shape)} is larger than what is stored of it"
        raise Refused("bad_model", message, hint="Save it with .contiguous().", detail="tensor_too_large")
