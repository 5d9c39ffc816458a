"""Layers are found in any model, made of modules or an uploaded graph, and the model is never changed."""

import pytest
import torch
from defenses.cases import batch, digits, mlp, normed, same
from torch import nn

from sparring.contract.defenses import YOPO, Dropout, Noise, PGDTraining, Plain, Training
from sparring.defenses.data import in_memory
from sparring.defenses.layers import TooFewLayersError, first, shaken, through_first
from sparring.defenses.training import train
from sparring.workers.pt2.load import load_pt2
from tests.workers.pt2 import nets


class Deep(nn.Module):
    """Normalisation, a convolution with batch norm, dropout, an own product with a weight that is transposed."""

    shape = (1, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.drop = nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Dropout(0.3)
        self.middle = nn.Parameter(torch.randn(20, 144) / 12)
        self.last = nn.Linear(20, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn(self.conv((x - 0.5) / 0.3))).flatten(1)
        return self.last(torch.relu(self.drop(x) @ self.middle.t()))


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """The same network, and its export."""
    torch.manual_seed(0)
    model = Deep()
    path = nets.write(model.eval(), tmp_path_factory.mktemp("graph") / "model.pt2")
    return model, path


def entering(model, x) -> list[tuple[int, ...]]:
    found = []
    shaken(model, x, lambda given, layer: found.append((layer, *given.shape[1:])) or given)
    return found


def test_what_enters_each_layer_but_the_first_is_found(graph) -> None:
    model, path = graph
    x = batch().x
    assert entering(mlp(), x) == [(1, 32), (2, 32)]
    assert entering(model, x) == [(1, 144), (2, 20)]
    assert entering(load_pt2(path).module, x) == [(1, 144), (2, 20)]


def test_shaking_changes_what_the_layers_see(graph) -> None:
    model, path = graph
    for each in (model.eval(), load_pt2(path).module):
        x = batch().x
        zero = shaken(each, x, lambda given, layer: given * 0)
        assert torch.allclose(zero, model.last.bias.expand(12, 10), atol=1e-6)
        assert torch.equal(shaken(each, x, lambda given, layer: given), each(x))


def test_a_model_of_one_layer_has_nothing_between(graph) -> None:
    one = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(TooFewLayersError, match="1 layers with weights"):
        shaken(one, batch().x, lambda given, layer: given)
    with pytest.raises(TooFewLayersError, match="no layer"):
        first(nn.Flatten(), batch().x)


def test_the_first_layer_is_found_and_the_rest_not_run(graph) -> None:
    model, path = graph
    for each in (model.eval(), load_pt2(path).module):
        x = batch().x.requires_grad_()
        logits, given = through_first(each, x)
        assert torch.allclose(first(each, x), given)
        assert given.shape == (12, 4, 6, 6)
        slope, costate = torch.autograd.grad(logits.logsumexp(1).sum(), (x, given))
        (through,) = torch.autograd.grad((costate * first(each, x)).sum(), x)
        assert torch.allclose(through, slope, atol=1e-6)


@pytest.mark.parametrize("spec", [Plain(), PGDTraining(steps=2), Dropout(), Noise(where="layers"), Noise(where="weights"), YOPO(rounds=2)])
def test_an_uploaded_graph_trains_as_the_model_it_was_exported_from(graph, spec) -> None:
    """Batch norm and dropout included, bit for bit."""
    model, path = graph
    original = Deep()
    original.load_state_dict(model.state_dict())
    loaded = load_pt2(path).module
    settings = Training(epochs=2, batch=40, monitor=8)
    for each in (original, loaded):
        assert list(train(each, spec, digits(), settings))[-1].end == "finished"
    state, own = original.state_dict(), loaded.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in state.items() if name in own and "num_batches" not in name)
    assert {name for name in state if "num_batches" not in name} <= own.keys()
    assert not same(original, model)
    assert torch.equal(loaded(batch().x), original.eval()(batch().x))


def test_dropout_leaves_no_trace_in_the_model() -> None:
    model = normed()
    names = [type(part).__name__ for part in model.modules()]
    list(train(model, Dropout(), digits(), Training(epochs=1)))
    assert names == [type(part).__name__ for part in model.modules()]
    assert torch.equal(model(batch().x), model(batch().x))


def test_a_defense_that_needs_layers_says_so() -> None:
    data = in_memory(torch.rand(20, 5), torch.arange(20) % 2)
    with pytest.raises(TooFewLayersError, match="1 layers"):
        list(train(nn.Linear(5, 2), Dropout(), data))
