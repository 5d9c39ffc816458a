"""One set of weights, seen in the ways that training needs.

The views share the model's weights; they differ in mode, in who may learn, and in whose running statistics a pass changes. So
nothing is switched to and fro between passes, and a perturbation cannot leak a gradient into the weights, nor its statistics
into the model. All passes of one update draw the same random numbers: dropout masks are equal in every view until `reseed`.
Where a trace holds all that a model does, a ReLU waits in them for the max pooling that alone reads it, which changes no bit and is
quicker. They are made once: a model whose parts, device or mode change later needs views anew.
"""

import copy
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sparring.attacks.convolutions import quick_slopes
from sparring.attacks.search import Quicker, pooled, quicker, traceable


class Views:
    """A model that is being trained."""

    def __init__(self, model: nn.Module) -> None:
        """`model` maps (B, …) float32 to logits (B, K); it is put in training mode, and every weight of it learns."""
        self.model = model
        model.train()
        model.requires_grad_(True)
        first = next(model.parameters(), None)
        if first is None:
            raise ValueError("the model has no parameters, so that there is nothing to train")
        self.device = first.device
        self._seed = 0
        self._stale = True

    def reseed(self, seed: int) -> None:
        """What every pass draws from now on, until the next call; told before each update."""
        self._seed = seed
        self._stale = True

    def live(self, x: Tensor, weights: dict[str, Tensor] | None = None) -> Tensor:
        """Logits (B, K) in training mode, with some weights by their names replaced by others for this pass.

        The one view whose passes change the running statistics.
        """
        return self._pass(self.model if weights else self._live, x, weights)

    def quiet(self, x: Tensor) -> Tensor:
        """Logits in training mode, of which the running statistics learn nothing; the weights do."""
        return self._pass(self._fresh(self._quiet), x)

    def masked(self, x: Tensor) -> Tensor:
        """Logits in training mode with the weights held constant: slopes reach x alone."""
        return self._pass(self._fresh(self._masked), x)

    def still(self, x: Tensor) -> Tensor:
        """Logits in evaluation mode with the weights held constant: slopes reach x alone."""
        return self._pass(self._still, x)

    def other(self, model: nn.Module, x: Tensor) -> Tensor:
        """Logits of another model, which is as it is, under the same random numbers."""
        return self._pass(model, x)

    def folded(self) -> nn.Module:
        """A copy as in `still` with batch norms folded away, of the weights as they are now, until the next call.

        It is one module, which every call renews: a slope through an earlier pass cannot be taken any more.
        """
        for each in self._folded.folded:
            each.renew()
        return self._folded.module

    @property
    def weights(self) -> list[nn.Parameter]:
        """Of layers: what has more than one dimension. Biases and norms have one."""
        return [parameter for parameter in self.model.parameters() if parameter.dim() > 1]

    def _pass(self, module: nn.Module, x: Tensor, weights: dict[str, Tensor] | None = None) -> Tensor:
        torch.default_generator.manual_seed(self._seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed_all(self._seed)
        logits: Tensor = functional_call(module, weights, (x,)) if weights else module(x)
        return logits

    @cached_property
    def _live(self) -> nn.Module:
        return (pooled(_twin(self.model, frozen=False, apart=False)) if traceable(self.model) else None) or self.model

    @cached_property
    def _quiet(self) -> nn.Module:
        twin = _twin(self.model, frozen=False, apart=True)
        return pooled(twin) or twin

    @cached_property
    def _masked(self) -> nn.Module:
        return _sloped(_twin(self.model, frozen=True, apart=True))

    @cached_property
    def _still(self) -> nn.Module:
        return _sloped(_twin(self.model, frozen=True, apart=False).eval())

    @cached_property
    def _folded(self) -> Quicker:
        return quicker(_twin(self.model, frozen=True, apart=False).eval())

    def _fresh(self, twin: nn.Module) -> nn.Module:
        """A view with statistics of its own begins every update with the model's."""
        if self._stale:
            with torch.no_grad():
                for view in (self.__dict__.get("_quiet"), self.__dict__.get("_masked")):
                    if view is not None:
                        own = dict(view.named_buffers())
                        for name, models in self.model.named_buffers():
                            if name in own:  # a trace leaves out what no pass reads
                                own[name].data.copy_(models)  # past autograd, which may still hold the old ones for a backward pass
            self._stale = False
        return twin


def _sloped(twin: nn.Module) -> nn.Module:
    """What is made of it for slopes in x alone."""
    view = pooled(twin) or twin
    quick_slopes(view)
    return view


def _twin(model: nn.Module, *, frozen: bool, apart: bool) -> nn.Module:
    """A copy that shares the weights' memory; with `frozen` no slope reaches them, with `apart` buffers are its own."""
    shared: dict[int, object] = {
        id(weight): nn.Parameter(weight.detach(), requires_grad=False) if frozen else weight for weight in model.parameters()
    }
    if not apart:
        shared |= {id(buffer): buffer for buffer in model.buffers()}
    return copy.deepcopy(model, shared)
