"""The search copy: what gradients are taken on. It may be prepared for speed; the judge never is."""

import copy

from torch import nn


def search_copy(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """A frozen copy of `model` (in evaluation mode) to search on, and what was done to it, in words."""
    search = copy.deepcopy(model).eval()
    for parameter in search.parameters():
        parameter.requires_grad_(False)
    return search, ("parameters frozen",)
