"""Architectures for bare weights. Widths, classes and input sizes are read from the weights; names are the weights' own."""

import itertools
import math
import re
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from sparring.contract.specs import Arch
from sparring.workers.errors import Refused, shown
from sparring.workers.weights import State, load_strictly


class Built(NamedTuple):
    """An architecture with its weights."""

    module: nn.Module
    input_shape: tuple[int, ...] | None
    """Shape of one row; None where the architecture takes several."""
    example: tuple[int, ...]
    """A shape of one row that it takes."""


def build(arch: Arch, state: State) -> Built:
    """The architecture `arch` with the weights `state`. Raises Refused (`shape_mismatch`) where they do not fit."""
    # shapes come from a stranger's file: on the meta device a module of any width costs nothing until it is found to fit
    with torch.device("meta"):
        built = _BUILDERS[arch](state)
    if len({tensor.dtype for tensor in state.values() if tensor.is_floating_point()}) != 1:
        raise _misfit("the weights are not all of one floating-point type")
    load_strictly(built.module, state)
    return built


class Mlp(nn.Module):
    """Linear layers with ReLU between them; rows are flattened first. Layers keep the names they had."""

    def __init__(self, layers: dict[str, tuple[int, int, bool]]) -> None:
        """`layers`: name to (inputs, outputs, has a bias), in order."""
        super().__init__()
        self.order = tuple(layers)
        for name, (inputs, outputs, bias) in layers.items():
            *folders, leaf = name.split(".")
            place: nn.Module = self
            for folder in folders:
                if folder not in place._modules:
                    place.add_module(folder, nn.Module())
                place = place.get_submodule(folder)
            place.add_module(leaf, nn.Linear(inputs, outputs, bias=bias))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Rows of any shape to logits."""
        x = x.flatten(1)
        for name in self.order[:-1]:
            x = functional.relu(self.get_submodule(name)(x))
        logits: torch.Tensor = self.get_submodule(self.order[-1])(x)
        return logits


class LeNet5(nn.Module):
    """Two 3x3 convolutions, each with ReLU and 2x2 max pooling, then two linear layers."""

    traceable = True

    def __init__(self, channels: tuple[int, int, int], features: int, hidden: int, classes: int) -> None:
        """`channels`: of the input, the first and the second convolution; `features`: numbers that enter linear1."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels[0], channels[1], 3, padding=1)
        self.conv2 = nn.Conv2d(channels[1], channels[2], 3, padding=1)
        self.linear1 = nn.Linear(features, hidden)
        self.linear2 = nn.Linear(hidden, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images (rows, channels, height, width) to logits."""
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = functional.relu(self.linear1(x.flatten(1)))
        logits: torch.Tensor = self.linear2(x)
        return logits


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm, and the input added to them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Channels in and out; a stride or a change of channels puts a 1x1 convolution on the shortcut."""
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features to features."""
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class ResNet18(nn.Module):
    """ResNet-18 for small images: a 3x3 stem and no pooling before the blocks."""

    def __init__(self, channels: int, width: int, classes: int) -> None:
        """`width`: channels of the first blocks, doubled three times."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(Block(width, width, 1), Block(width, width, 1))
        self.layer2 = nn.Sequential(Block(width, 2 * width, 2), Block(2 * width, 2 * width, 1))
        self.layer3 = nn.Sequential(Block(2 * width, 4 * width, 2), Block(4 * width, 4 * width, 1))
        self.layer4 = nn.Sequential(Block(4 * width, 8 * width, 2), Block(8 * width, 8 * width, 1))
        self.fc = nn.Linear(8 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images (rows, channels, height, width) to logits."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: torch.Tensor = self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def _misfit(message: str) -> Refused:
    hint = "Choose the architecture the weights were trained with, or export the model as a graph with `sparring export`."
    return Refused("bad_model", message, hint=hint, detail="shape_mismatch")


def _shape(state: State, name: str, dimensions: int) -> tuple[int, ...]:
    """Shape of the weight `name`, which the architecture must have."""
    if name not in state:
        held = ", ".join(shown(key) for key in list(state)[:8])
        raise _misfit(f"the weights have no {name} (they have {held}{' …' if len(state) > 8 else ''})")
    shape = tuple(state[name].shape)
    if len(shape) != dimensions or 0 in shape:
        raise _misfit(f"{name} has shape {shape}, not {dimensions} sizes above zero")
    return shape


def _side(features: int, channels: int, name: str) -> int:
    """Side of the square feature maps that `features` numbers in `channels` channels make."""
    side = math.isqrt(features // channels)
    if side == 0 or side * side * channels != features:
        raise _misfit(f"{name} takes {features} numbers, which are no {channels} square feature maps")
    return side


def _mlp(state: State) -> Built:
    """Linear layers in the order of the numbers in their names; each must take what the one before gives."""
    names = [key.removesuffix(".weight") for key in state if key.endswith(".weight")]
    numbers = {name: [int(digits) for digits in re.findall(r"\d{1,9}", name)] for name in names}
    if not names or len({tuple(found) for found in numbers.values()}) < len(names):
        raise _misfit("the layers of an mlp are told by the numbers in their names (0.weight, 2.weight or l1.weight, l2.weight)")
    names.sort(key=lambda name: numbers[name])
    layers = {}
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_]{1,60}(\.[A-Za-z0-9_]{1,60}){0,5}", name):
            raise _misfit(f"{shown(name)} is no name of a layer")
        outputs, inputs = _shape(state, f"{name}.weight", 2)
        layers[name] = (inputs, outputs, f"{name}.bias" in state)
    for first, second in itertools.pairwise(names):
        if layers[first][1] != layers[second][0]:
            raise _misfit(f"layer {first} gives {layers[first][1]} numbers but {second} takes {layers[second][0]}")
    return Built(Mlp(layers), None, (layers[names[0]][0],))


def _lenet5(state: State) -> Built:
    first, channels, *_ = _shape(state, "conv1.weight", 4)
    second, *_ = _shape(state, "conv2.weight", 4)
    hidden, features = _shape(state, "linear1.weight", 2)
    classes, _ = _shape(state, "linear2.weight", 2)
    side = 4 * _side(features, second, "linear1")
    return Built(LeNet5((channels, first, second), features, hidden, classes), (channels, side, side), (channels, side, side))


def _cnn(state: State) -> Built:
    """Conv 4x4 stride 2, ReLU, conv 4x4 stride 2, ReLU, linear, ReLU, linear, as one Sequential."""
    first, channels, *_ = _shape(state, "0.weight", 4)
    second, *_ = _shape(state, "2.weight", 4)
    hidden, features = _shape(state, "5.weight", 2)
    classes, _ = _shape(state, "7.weight", 2)
    side = 4 * _side(features, second, "layer 5")
    module = nn.Sequential(
        nn.Conv2d(channels, first, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(first, second, 4, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(features, hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )
    return Built(module, (channels, side, side), (channels, side, side))


def _resnet18(state: State) -> Built:
    width, channels, *_ = _shape(state, "conv1.weight", 4)
    classes, _ = _shape(state, "fc.weight", 2)
    return Built(ResNet18(channels, width, classes), None, (channels, 32, 32))


_BUILDERS: dict[Arch, Callable[[State], Built]] = {"mlp": _mlp, "lenet5": _lenet5, "cnn": _cnn, "resnet18": _resnet18}
