"""Common corruptions of pictures: what weather, lenses and files do, as against what an attacker does."""

from typing import Literal, get_args

CorruptionName = Literal[
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "speckle_noise",
    "gaussian_blur",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "contrast",
    "brightness",
    "saturate",
    "pixelate",
    "rotation",
    "translation",
]
"""Hendrycks, Dietterich 2019, arXiv 1903.12261, as far as they need no other files; rotation and translation are our own."""

CORRUPTIONS: tuple[CorruptionName, ...] = get_args(CorruptionName)
"""Every corruption, in the order of the list."""
SEVERITIES = 5
"""Each comes in severities from 1 to this."""
COLOURED: frozenset[CorruptionName] = frozenset({"saturate"})
"""These mean nothing for grey pictures, and are left out there."""
