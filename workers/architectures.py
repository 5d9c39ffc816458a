"""Models that an attacker trains, made for rows of a shape and a number of classes."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparring.contract.attacks.gray import Architecture
from sparring.contract.specs import Layout
from sparring.workers.errors import Refused

_SMALLEST = 4  # rows and columns of a picture that two poolings leave something of


class Standardised(nn.Module):
    """Rows of the data in; what follows sees them with mean 0 and deviation 1, channels first."""

    traceable = True

    def __init__(self, body: nn.Module, x: Tensor, layout: Layout | None) -> None:
        """X (B, …): the rows to take mean and deviation from."""
        super().__init__()
        self.body = body
        self.channels_last = layout == "NHWC" and x.dim() == 4
        self.mean, self.deviation = nn.Buffer(x.mean()), nn.Buffer(x.std().clamp(min=1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """(B, …) -> logits (B, K)."""
        x = (x - self.mean) / self.deviation
        logits: Tensor = self.body(x.movedim(-1, 1) if self.channels_last else x)
        return logits


class EEGNet(nn.Module):
    """EEGNet-8,2 (Lawhern et al. 2016, arXiv 1611.08024) on (channels, samples), without its constraints on the norm of weights."""

    def __init__(self, channels: int, samples: int, classes: int) -> None:
        """Kernels of half a second at 128 Hz."""
        super().__init__()
        self.spectral = nn.Sequential(nn.ZeroPad2d((31, 32, 0, 0)), nn.Conv2d(1, 8, (1, 64), bias=False), nn.BatchNorm2d(8))
        self.spatial = nn.Sequential(nn.Conv2d(8, 16, (channels, 1), groups=8, bias=False), nn.BatchNorm2d(16), nn.ELU())
        separable = [nn.ZeroPad2d((7, 8, 0, 0)), nn.Conv2d(16, 16, (1, 16), groups=16, bias=False), nn.Conv2d(16, 16, 1, bias=False)]
        self.separable = nn.Sequential(*separable, nn.BatchNorm2d(16), nn.ELU())
        self.dropout = nn.Dropout(0.5)
        self.last = nn.Linear(16 * (samples // 4 // 8), classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, samples), or with an axis of length 1 before the channels -> logits (B, K)."""
        x = self.spatial(self.spectral(x.reshape(len(x), 1, x.shape[-2], x.shape[-1])))
        x = self.separable(self.dropout(functional.avg_pool2d(x, (1, 4))))
        logits: Tensor = self.last(self.dropout(functional.avg_pool2d(x, (1, 8))).flatten(1))
        return logits


def is_picture(shape: tuple[int, ...]) -> bool:
    """Whether rows of this shape, channels first, are pictures large enough for `cnn`."""
    return len(shape) in (2, 3) and min(shape[-2:]) >= _SMALLEST


def architecture(name: Architecture, shape: tuple[int, ...], classes: int) -> nn.Module:
    """A fresh model for rows of `shape`, channels first. Raises Refused where it cannot read such rows."""
    numbers = int(torch.Size(shape).numel())
    if name == "tanh":
        return nn.Sequential(nn.Flatten(), nn.Linear(numbers, 64), nn.Tanh(), nn.Linear(64, classes))
    if name == "mlp":
        hidden = [nn.Linear(numbers, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()]
        return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(256, classes))
    if name == "cnn" and is_picture(shape):
        channels, height, width = shape if len(shape) == 3 else (1, *shape)
        convolutions = [nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        convolutions += [nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        head = [nn.Flatten(), nn.Linear(64 * (height // 4) * (width // 4), 128), nn.ReLU(), nn.Linear(128, classes)]
        return nn.Sequential(*([nn.Unflatten(1, (1, height))] if len(shape) == 2 else []), *convolutions, *head)
    if name == "eegnet" and len(shape) in (2, 3) and shape[-1] >= 32 and shape[:-2] in ((), (1,)):
        return EEGNet(shape[-2], shape[-1], classes)
    wanted = "channels by at least 32 samples" if name == "eegnet" else "pictures of at least 4 by 4"
    raise Refused(
        "unsupported",
        f"the surrogate {name} reads {wanted}, not rows of shape {list(shape)}",
        hint="Name another architecture, such as mlp, which reads rows of any shape.",
        detail="surrogate_shape",
    )


def afresh(model: nn.Module) -> None:
    """Give every layer of a model new weights, as at its making. Raises Refused where a layer has no such beginning."""
    for name, layer in model.named_modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
        elif next(layer.parameters(recurse=False), None) is not None:
            raise Refused(
                "unsupported",
                f"the surrogate `same` cannot begin afresh: {name or 'the model'} is no layer whose first weights are known",
                hint="Name the architectures of the surrogates; `same` is for models of the built-in zoo.",
                detail="surrogate_same",
            )
