"""What happens where a layer meets its weights, in any model: made of modules, or an uploaded graph of operators.

A layer is a call that takes a weight of two or more dimensions. Calls are watched while the model runs, so that the model itself
is never changed, and needs nothing to be put into it or taken out again.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Model = Callable[[Tensor], Tensor]
Shake = Callable[[Tensor, int], Tensor]
"""(what enters a layer, the layer's number from 0) -> what enters it instead."""


class TooFewLayersError(ValueError):
    """The model has no layer that what was asked for could act on."""


class Shaken(TorchFunctionMode):
    """While it lasts, what enters each layer but the first goes through `shake`."""

    def __init__(self, shake: Shake) -> None:
        """Begin to watch with `with`."""
        super().__init__()
        self._shake, self.layers = shake, 0

    def __torch_function__(
        self, call: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """One call of the model."""
        kwargs = kwargs or {}
        if not _is_layer(args, kwargs):
            return call(*args, **kwargs)
        self.layers += 1
        at, given = next((at, each) for at, each in enumerate(args) if isinstance(each, Tensor) and not _is_weight(each))
        if self.layers > 1:
            given = self._shake(given, self.layers - 1)
        return call(*args[:at], given, *args[at + 1 :], **kwargs)


class _Stop(Exception):
    """The first layer has been passed."""


class _First(TorchFunctionMode):
    def __init__(self, *, stop: bool) -> None:
        super().__init__()
        self.stop, self.found = stop, torch.empty(0)

    def __torch_function__(
        self, call: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = call(*args, **kwargs)
        if not len(self.found) and _is_layer(args, kwargs):
            self.found = out
            if self.stop:
                raise _Stop
        return out


def shaken(model: Model, x: Tensor, shake: Shake) -> Tensor:
    """The logits where what enters each layer but the first goes through `shake`.

    Raises:
        TooFewLayersError: there is no second layer.
    """
    with Shaken(shake) as watch:
        logits = model(x)
    if watch.layers < 2:
        raise TooFewLayersError(f"the model has {watch.layers} layers with weights: there is nothing between layers to act on")
    return logits


def through_first(model: Model, x: Tensor) -> tuple[Tensor, Tensor]:
    """The logits, and what the first layer gave on the way."""
    with _First(stop=False) as watch:
        logits = model(x)
    return logits, _given(watch)


def first(model: Model, x: Tensor) -> Tensor:
    """What the first layer gives; the rest of the model is not run."""
    watch = _First(stop=True)
    try:
        with watch:
            model(x)
    except _Stop:
        pass
    return _given(watch)


def _given(watch: _First) -> Tensor:
    if not len(watch.found):
        raise TooFewLayersError("the model has no layer with weights of two or more dimensions")
    return watch.found


def _is_layer(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """It takes a weight, and something else that is a tensor."""
    weights = sum(_is_weight(each) for each in (*args, *kwargs.values()))
    return weights > 0 and any(isinstance(each, Tensor) and each.dim() > 1 and not _is_weight(each) for each in args)


def _is_weight(given: Any) -> bool:
    """A parameter of two or more dimensions, or one transposed."""
    if not isinstance(given, Tensor) or given.dim() < 2:
        return False
    return isinstance(given, nn.Parameter) or isinstance(given._base, nn.Parameter)
