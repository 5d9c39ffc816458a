import pytest
import torch
from torch import nn

from sparring.workers import zoo
from sparring.workers.errors import Refused
from tests.workers.pt2 import nets


def cnn(channels=1, first=4, second=6, hidden=9, classes=10, side=28):
    features = second * (side // 4) ** 2
    return nn.Sequential(
        nn.Conv2d(channels, first, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(first, second, 4, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(features, hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )


ORIGINALS = [
    ("mlp", nets.Mlp(), (1, 8, 8), None),
    ("mlp", nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)), (6,), None),
    ("mlp", nn.Sequential(nn.Linear(6, 6, bias=False), nn.ReLU(), nn.Linear(6, 6)), (6,), None),
    ("lenet5", nets.LeNet(), (1, 28, 28), (1, 28, 28)),
    ("cnn", cnn(), (1, 28, 28), (1, 28, 28)),
    ("cnn", cnn(channels=3, side=32, classes=7), (3, 32, 32), (3, 32, 32)),
    ("resnet18", zoo.ResNet18(3, 8, 5), (3, 32, 32), None),
]


@pytest.mark.parametrize(("arch", "original", "shape", "declared"), ORIGINALS)
def test_widths_are_read_from_the_weights_and_names_kept(arch, original, shape, declared):
    built = zoo.build(arch, original.state_dict())
    module = built.module.eval()
    x = torch.rand(3, *shape)
    assert torch.equal(module(x), original.eval()(x))
    assert module.state_dict().keys() == original.state_dict().keys()
    assert built.input_shape == declared
    assert all(parameter.requires_grad and parameter.device.type == "cpu" for parameter in module.parameters())
    assert module(torch.rand(2, *built.example)).shape[0] == 2


def test_layers_are_ordered_by_number_not_by_letter():
    state = {f"l{number}.weight": torch.randn(4, 4) for number in (10, 9, 1)}
    module = zoo.build("mlp", state).module
    assert module.order == ("l1", "l9", "l10")


def test_resnet18_has_torchvisions_names():
    names = zoo.ResNet18(3, 8, 10).state_dict().keys()
    assert {
        "conv1.weight",
        "bn1.running_var",
        "layer1.0.conv1.weight",
        "layer2.0.downsample.1.bias",
        "layer4.1.bn2.weight",
        "fc.bias",
    } <= names
    assert len(names) == 122


@pytest.mark.parametrize(
    ("arch", "state", "told"),
    [
        ("mlp", {"a.weight": torch.zeros(2, 3), "b.weight": torch.zeros(2, 2)}, "numbers in their names"),
        ("mlp", {"0.weight": torch.zeros(4, 3), "2.weight": torch.zeros(2, 5)}, "gives 4 numbers but 2 takes 5"),
        ("mlp", {"0.weight": torch.zeros(4, 3, 3, 3)}, "not 2 sizes"),
        ("mlp", {"0.weight": torch.zeros(0, 3)}, "above zero"),
        ("mlp", {"0.bias": torch.zeros(3)}, "numbers in their names"),
        ("mlp", {"../0.weight": torch.zeros(2, 3)}, "no name of a layer"),
        ("mlp", {"0.weight": torch.zeros(2, 3), "0.gamma": torch.zeros(2)}, "unknown '0.gamma'"),
        ("lenet5", {"0.weight": torch.zeros(2, 3)}, "no conv1.weight"),
        ("cnn", {**cnn().state_dict(), "5.weight": torch.zeros(9, 295), "7.weight": torch.zeros(10, 9)}, "no 6 square feature maps"),
        ("cnn", {name: value for name, value in cnn().state_dict().items() if name != "2.bias"}, "missing 2.bias"),
        ("resnet18", {"conv1.weight": torch.zeros(2**20, 3, 3, 3), "fc.weight": torch.zeros(10, 2)}, "more differences"),
        ("resnet18", {"conv1.weight": torch.zeros(8, 3, 7, 7), "fc.weight": torch.zeros(10, 64)}, "(8, 3, 7, 7) instead of (8, 3, 3, 3)"),
    ],
)
def test_weights_of_another_architecture_are_refused_with_the_difference(arch, state, told):
    with pytest.raises(Refused) as refused:
        zoo.build(arch, state)
    assert told in refused.value.reason.message
    assert refused.value.reason.detail == "shape_mismatch"
