"""What a model does to its input, written down call by call, so that parts of it can be done again on other tensors."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_FACTS = frozenset({"__get", "size", "dim", "ndimension", "numel", "stride", "is_contiguous", "is_floating_point", "__len", "sym_size"})
"""What may be asked of a tensor without its numbers having a say in what is done next."""


class At(NamedTuple):
    """In place of a tensor that depends on the input: its number."""

    number: int


class Step(NamedTuple):
    """One call."""

    call: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    """`At`, or several of them."""

    @property
    def name(self) -> str:
        """Of the function: `relu` for `torch.relu_`, `aten.relu.default` and the like."""
        return str(getattr(self.call, "__name__", "")).split(".")[0].rstrip("_")

    @property
    def reads(self) -> set[int]:
        """The numbers of the tensors it takes."""
        return _numbers((self.args, self.kwargs))

    @property
    def writes(self) -> set[int]:
        """The numbers of the tensors it gives."""
        return _numbers(self.out)


class Tape(NamedTuple):
    """The calls of one pass. Tensor 0 is the input."""

    steps: tuple[Step, ...]
    layouts: tuple[tuple[torch.Size, tuple[int, ...]], ...]
    """Shape and strides of each tensor."""
    result: int


class _Recorder(TorchFunctionMode):
    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.tensors = [x]  # kept alive, so that no two of them share an id
        self.index = {id(x): 0}
        self.sound = True

    def __torch_function__(self, call: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        step = Step(call, self.shown(args), self.shown(kwargs), None)
        out = call(*args, **kwargs)
        if step.reads:
            if isinstance(out, Tensor) or (isinstance(out, (tuple, list)) and any(isinstance(part, Tensor) for part in out)):
                self.steps.append(step._replace(out=self.number(out)))
            elif step.name not in _FACTS:
                self.sound = False
        return out

    def shown(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return At(self.index[id(value)]) if id(value) in self.index else value
        if isinstance(value, dict):
            return {key: self.shown(part) for key, part in value.items()}
        return type(value)(map(self.shown, value)) if type(value) in (tuple, list) else value

    def number(self, out: Any) -> Any:
        if isinstance(out, Tensor):
            if id(out) not in self.index:
                self.index[id(out)] = len(self.tensors)
                self.tensors.append(out)
            return At(self.index[id(out)])
        return tuple(map(self.number, out)) if isinstance(out, (tuple, list)) else out


def record(model: nn.Module, x: Tensor) -> Tape | None:
    """One pass of x through the model; None where what it does may hang on the numbers it sees."""
    recorder = _Recorder(x)
    with torch.no_grad(), recorder:
        result = model(x)
    if not recorder.sound or id(result) not in recorder.index:
        return None
    layouts = tuple((tensor.shape, tensor.stride()) for tensor in recorder.tensors)
    return Tape(tuple(recorder.steps), layouts, recorder.index[id(result)])


def play(steps: tuple[Step, ...], known: dict[int, Tensor], result: int) -> Tensor:
    """Do the steps again, from tensors that are known by their numbers."""
    values: dict[int, Any] = dict(known)
    for step in steps:
        _store(values, step.out, step.call(*_filled(step.args, values), **_filled(step.kwargs, values)))
    answer: Tensor = values[result]
    return answer


def _filled(value: Any, values: dict[int, Any]) -> Any:
    if isinstance(value, At):
        return values[value.number]
    if isinstance(value, dict):
        return {key: _filled(part, values) for key, part in value.items()}
    return type(value)(_filled(part, values) for part in value) if type(value) in (tuple, list) else value


def _store(values: dict[int, Any], place: Any, out: Any) -> None:
    if isinstance(place, At):
        values[place.number] = out
    elif isinstance(place, tuple):
        for part, value in zip(place, out, strict=True):
            _store(values, part, value)


def _numbers(value: Any) -> set[int]:
    if isinstance(value, At):
        return {value.number}
    parts = value.values() if isinstance(value, dict) else value if type(value) in (tuple, list) else ()
    return set().union(*map(_numbers, parts))
