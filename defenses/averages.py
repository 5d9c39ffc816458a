"""Means of the weights over a training, which are flatter and more robust than the last weights."""

import torch
from torch import Tensor, nn

from sparring.contract.defenses import Training


class Average:
    """The moving average (EMA) or the mean of the ends of epochs (SWA, Izmailov et al. 2018, 1803.05407), as the settings say."""

    def __init__(self, model: nn.Module, settings: Training) -> None:
        """Begin with the model's weights, if there is to be an average at all."""
        self._settings = settings
        self._weights = dict(model.named_parameters()) if settings.average != "none" else {}
        self.tensors = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self.count = 0

    @torch.no_grad()
    def stepped(self) -> None:
        """After each step of the weights. The first ones keep less of what was before: min(tau, (1 + n) / (10 + n))."""
        if self._settings.average == "ema":
            kept = min(self._settings.ema, (1 + self.count) / (10 + self.count))
            self._toward(1 - kept)

    @torch.no_grad()
    def turned(self, done: float) -> None:
        """After each epoch."""
        if self._settings.average == "swa" and done > self._settings.swa_after:
            self._toward(1 / (self.count + 1))

    @torch.no_grad()
    def deliver(self) -> bool:
        """Give the model the average; False where there is none."""
        for name, mean in self.tensors.items():
            self._weights[name].copy_(mean)
        return bool(self.tensors) and self.count > 0

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor], count: int) -> None:
        """Go on with an average from a checkpoint."""
        self.count = count
        for name, tensor in tensors.items():
            self.tensors[name].copy_(tensor)

    def _toward(self, share: float) -> None:
        for name, mean in self.tensors.items():
            mean.lerp_(self._weights[name], share)
        self.count += 1
