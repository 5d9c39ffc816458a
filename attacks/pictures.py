"""Rows seen as pictures, and windows in them."""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Picture(NamedTuple):
    """How rows are seen: a vector as one line, a table as one channel; of more axes the last two are height and width.

    A third axis of at most four entries after two longer ones holds colours.
    """

    channels: int
    height: int
    width: int
    colours_last: bool

    def open(self, x: Tensor) -> Tensor:
        """(B, …) as (B, C, H, W)."""
        if self.colours_last:
            return x.movedim(3, 1)
        return x.reshape(-1, self.channels, self.height, self.width)

    def close(self, picture: Tensor, like: Tensor) -> Tensor:
        """The way back, to the shape of `like`."""
        return (picture.movedim(1, 3) if self.colours_last else picture).reshape(like.shape)

    def axes(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The numbers of the rows (H,) and of the columns (W,), on the device of `like`."""
        return torch.arange(self.height, device=like.device), torch.arange(self.width, device=like.device)


def picture(shape: tuple[int, ...]) -> Picture:
    """How rows of this shape are seen."""
    if len(shape) == 3 and shape[2] <= 4 and shape[2] < min(shape[:2]):
        return Picture(shape[2], shape[0], shape[1], colours_last=True)
    height, width = (1, 1, *shape)[-2:]
    return Picture(math.prod(shape[:-2]), height, width, colours_last=False)


class Window(NamedTuple):
    """One window for each row: its upper left corner and its size, (B,) each."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor

    def inside(self, seen: Picture) -> Tensor:
        """(B, 1, H, W) bool."""
        row, column = seen.axes(self.top)
        rows = (row >= self.top[:, None]) & (row < (self.top + self.height)[:, None])
        columns = (column >= self.left[:, None]) & (column < (self.left + self.width)[:, None])
        return (rows[:, :, None] & columns[:, None, :])[:, None]


def window(draws: Tensor, size: Tensor, seen: Picture) -> Window:
    """Draws (B, 2) in (0, 1) to a window of `size` (B, 2), anywhere that it fits, the last row and column included."""
    room = size.new_tensor([seen.height, seen.width]) - size
    corner = torch.minimum((draws * (room + 1)).long(), room)
    return Window(corner[:, 0], corner[:, 1], size[:, 0], size[:, 1])
