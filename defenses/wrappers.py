"""What stands before a model when it is used. Rounding has no slope: on the way back it counts as if it were not there (BPDA)."""

from typing import assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparring.attacks.norms import Bounds
from sparring.contract.defenses import JPEG, AnyWrapper, BitDepth, NoisyInput, Smoothed
from sparring.contract.quantity import value

# ITU-T T.81, tables K.1 and K.2
# fmt: off
_LIGHT = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)
# fmt: on
_COLOUR = (17, 18, 24, 47, 18, 21, 26, 66, 24, 26, 56, 99, 47, 66, 99, 99)
# ITU-T T.871: red, green, blue to light, blue and red difference
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def _through(exact: Tensor, smooth: Tensor) -> Tensor:
    """The value of the first, with the slope of the second."""
    return smooth + (exact - smooth).detach()


class Wrapped(nn.Module):
    """A model with something before it; logits (B, K) out."""

    def __init__(self, model: nn.Module, spec: AnyWrapper, bounds: Bounds) -> None:
        """`bounds` are those of the data.

        Raises:
            ValueError: the wrapper needs bounds and there are none.
        """
        super().__init__()
        if spec.gradient == "bpda" and bounds is None:
            raise ValueError(f"{spec.kind} rounds within the bounds of the data: declare them")
        self.model, self.spec, self.bounds = model, spec, bounds or (0.0, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, …) -> logits (B, K)."""
        spec, (low, high) = self.spec, self.bounds
        match spec:
            case JPEG():
                return self._asked(low + (high - low) * jpeg((x - low) / (high - low), spec.quality))
            case BitDepth():
                return self._asked(low + (high - low) * coarse((x - low) / (high - low), spec.bits))
            case NoisyInput():
                return self._asked(x + value(spec.sigma) * torch.randn_like(x))
            case Smoothed():
                told = [self._asked(x + value(spec.sigma) * torch.randn_like(x)).log_softmax(1) for _ in range(spec.samples)]
                return torch.stack(told).logsumexp(0)
        assert_never(spec)

    def _asked(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits


def coarse(x: Tensor, bits: int) -> Tensor:
    """Entries in [0, 1] rounded to so many bits."""
    most = 2**bits - 1
    return _through((x * most).round() / most, x)


def jpeg(x: Tensor, quality: int) -> Tensor:
    """Pictures (B, 1 or 3, H, W) in [0, 1] as baseline JPEG without subsampling of colours would give them back.

    Raises:
        ValueError: the rows are no such pictures.
    """
    if x.dim() != 4 or x.shape[1] not in (1, 3):
        raise ValueError(f"jpeg needs pictures of 1 or 3 channels; rows have shape {list(x.shape[1:])}")
    height, width = x.shape[2:]
    pixels = _through((x * 255).round().clamp(0, 255), x * 255)
    change = torch.tensor(_TO_YCC, device=x.device, dtype=x.dtype)
    planes = torch.einsum("kc,bchw->bkhw", change, pixels) if x.shape[1] == 3 else pixels
    planes = _through(planes.round(), planes)
    shift = torch.tensor([128.0, 0.0, 0.0], device=x.device, dtype=x.dtype)[: x.shape[1], None, None]
    padded = functional.pad(planes - shift, (0, -width % 8, 0, -height % 8), mode="replicate")
    restored = _blocks(padded, _tables(quality, x))[:, :, :height, :width] + shift
    if x.shape[1] == 3:
        restored = torch.einsum("ck,bkhw->bchw", torch.linalg.inv(change), restored)
    return _through(restored.round().clamp(0, 255), restored) / 255


def _tables(quality: int, x: Tensor) -> Tensor:
    """(C, 8, 8): what coefficients of each channel are rounded by."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    light = torch.tensor(_LIGHT, device=x.device).reshape(8, 8)
    colour = torch.full((8, 8), 99, device=x.device)
    colour[:4, :4] = torch.tensor(_COLOUR, device=x.device).reshape(4, 4)
    base = torch.stack((light, colour, colour))[: x.shape[1]]
    return ((base * scale + 50) // 100).clamp(1, 255).to(x.dtype)


def _blocks(planes: Tensor, tables: Tensor) -> Tensor:
    """Blocks of 8 by 8 through the cosine transform, rounded, and back."""
    rows, channels, height, width = planes.shape
    step = torch.arange(8, device=planes.device, dtype=planes.dtype)
    cosine = ((2 * step + 1) * step[:, None] * torch.pi / 16).cos() / 2
    cosine[0] /= 2**0.5
    blocks = planes.reshape(rows, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    scaled = cosine @ blocks @ cosine.T / tables[:, None, None]
    back = cosine.T @ (_through(scaled.round(), scaled) * tables[:, None, None]) @ cosine
    return back.transpose(3, 4).reshape(planes.shape)
