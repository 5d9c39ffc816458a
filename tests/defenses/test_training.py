"""The loop itself: rates, averages, ends, and what it refuses."""

import math
from itertools import pairwise

import pytest
import torch
from defenses.cases import digits, mlp, normed, same
from torch import nn

from sparring.contract.defenses import IMSAT, LDS, VAT, FastTraining, FreeTraining, PGDTraining, Plain, Training
from sparring.defenses import training
from sparring.defenses.data import in_memory
from sparring.defenses.state import State
from sparring.defenses.training import train
from sparring.defenses.watch import Seen

SHORT = Training(epochs=4, batch=40, monitor=8)


def steps(model: nn.Module, settings: Training, spec=None):
    """Weights after every step, and the last progress."""
    found = []
    for told in train(model, spec or Plain(), digits(), settings, every=1):
        found.append((told, told.state()))
    return found


def test_progress_tells_how_far_it_has_come() -> None:
    told = list(train(mlp(), PGDTraining(eps=0.1), digits(), SHORT))
    assert [each.epoch for each in told] == [1, 2, 3, 4]
    assert [each.done for each in told] == [0.25, 0.5, 0.75, 1.0]
    assert [each.end for each in told] == ["", "", "", "finished"]
    assert all(math.isfinite(each.loss) and each.epochs == 4 for each in told)
    assert all(each.seen and each.seen.total == 8 and each.seen.robust <= each.seen.clean for each in told)
    assert told[0].seconds_left > 0
    assert told[-1].seconds_left == 0
    assert (told[0].threat.norm, told[0].threat.radius) == ("linf", 0.1)


def test_progress_within_an_epoch() -> None:
    told = list(train(mlp(), Plain(), digits(), SHORT, every=1))
    assert [each.done for each in told] == [at / 8 for at in range(1, 9)]
    assert [each.seen is None for each in told] == [True, False] * 4


def test_epochs_are_divided_by_replays() -> None:
    told = list(train(mlp(), FreeTraining(replays=3), digits(), SHORT))
    assert [each.epoch for each in told] == [1, 2]
    assert told[-1].state().facts["updates"] == 2 * 2 * 3


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1, 1, 1, 1]),
        ("linear", [0.875, 0.625, 0.375, 0.125]),
        ("cyclic", [0.25, 0.75, 0.75, 0.25]),
        ("steps", [1, 1, 0.1, 0.01]),
        ("cosine", [(1 + math.cos(math.pi * at / 8)) / 2 for at in (1, 3, 5, 7)]),
    ],
)
def test_rates_follow_their_schedule(schedule, expected) -> None:
    """With a slope of one everywhere the weights fall by the rate."""

    class Slope(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2, dtype=torch.float64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack((torch.zeros(len(x), dtype=torch.float64), self.weight.sum() + x.sum(1) * 0), 1)

    model = Slope()
    data = in_memory(torch.zeros(40, 1), torch.zeros(40, dtype=torch.int64))
    settings = Training(epochs=4, batch=40, optimizer="sgd", momentum=0.0, rate=1e-6, schedule=schedule, monitor=0)
    weights = [told.state().tensors["model/weight"][0] for told in train(model, Plain(), data, settings)]
    falls = -torch.stack([weights[0], *(after - before for before, after in pairwise(weights))])
    assert torch.allclose(falls, torch.tensor(expected, dtype=torch.float64) * 1e-6 / 2, rtol=1e-4)


def test_the_mean_of_weights_is_that_of_the_ends_of_epochs() -> None:
    settings = SHORT.model_copy(update={"average": "swa", "swa_after": 0.3})
    model = mlp()
    told = steps(model, settings)
    ends = [state.part("model") for each, state in told if each.seen is not None]
    for name, tensor in model.state_dict().items():
        assert torch.allclose(tensor, torch.stack([end[name] for end in ends[1:]]).mean(0), atol=1e-6)


def test_the_moving_average_forgets_faster_at_first() -> None:
    model = mlp()
    average = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    told = steps(model, SHORT.model_copy(update={"average": "ema", "ema": 0.3}))
    for at, (_, state) in enumerate(told):
        kept = min(0.3, (1 + at) / (10 + at))
        for name, tensor in state.part("model").items():
            average[name] = kept * average[name] + (1 - kept) * tensor
    assert all(torch.allclose(tensor, average[name], atol=1e-6) for name, tensor in model.state_dict().items())


def test_averaged_weights_get_running_statistics_of_their_own() -> None:
    model = normed()
    told = steps(model, SHORT.model_copy(update={"average": "swa"}))
    assert not torch.equal(model[1].running_mean, told[-1][1].tensors["model/1.running_mean"])
    assert not model.training


def test_a_training_that_diverges_ends_with_the_last_good_weights() -> None:
    model = mlp()
    told = []
    for each in train(model, Plain(), digits(), SHORT.model_copy(update={"optimizer": "sgd", "rate": 1e18, "schedule": "constant"})):
        told.append(each)
    assert told[-1].end == "diverged"
    assert "lower the rate" in told[-1].reason
    assert all(torch.isfinite(weight).all() for weight in model.parameters())
    assert all(torch.equal(tensor, told[-1].state().tensors[f"model/{name}"]) for name, tensor in model.state_dict().items())


def test_rows_that_are_nan_end_it_too() -> None:
    data = digits()
    poisoned = in_memory(data.rows(torch.arange(80)).index_fill(0, torch.tensor([50]), math.nan), data.labels)
    model = mlp()
    (told,) = train(model, Plain(), poisoned, SHORT.model_copy(update={"monitor": 0}))
    assert told.end == "diverged"
    assert same(model, mlp())


def test_the_guard_ends_it_where_accuracy_under_pgd_falls(monkeypatch) -> None:
    looks = iter([Seen(4, 3, 4), Seen(4, 4, 4), Seen(4, 3, 4), Seen(4, 4, 4)])
    monkeypatch.setattr(training.Watch, "look", lambda watch, views: next(looks))
    model = mlp()
    told = [(each, each.state()) for each in train(model, FastTraining(eps=0.1), digits(), SHORT)]
    assert [each.end for each, _ in told] == ["", "", "overfitting"]
    assert all(torch.equal(tensor, told[1][1].tensors[f"model/{name}"]) for name, tensor in model.state_dict().items())
    looks = iter([Seen(4, 3, 4), Seen(4, 4, 4), Seen(4, 3, 4), Seen(4, 4, 4)])
    assert list(train(mlp(), FastTraining(eps=0.1, guard=0), digits(), SHORT))[-1].end == "finished"


def test_the_models_own_draws_and_others_do_not_mix() -> None:
    model, before = normed(), torch.get_rng_state()
    list(train(model, VAT(), digits(), SHORT))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_model_is_left_in_evaluation_mode_and_plain_order_of_memory_without_gradients() -> None:
    model = normed()
    list(train(model, PGDTraining(), digits(), SHORT))
    assert not any(part.training for part in model.modules())
    assert all(weight.is_contiguous() and weight.grad is None for weight in model.parameters())


def test_while_it_learns_channels_come_last_in_memory_even_a_single_one() -> None:
    model, seen = normed(), set()
    model.register_forward_hook(lambda model, asked, answer: seen.add(model[0].weight.stride()) if model.training else None)
    list(train(model, Plain(), digits(), SHORT))
    assert seen == {(9, 1, 3, 1)}
    assert model[0].weight.stride() == (9, 9, 3, 1)


def test_a_model_that_looks_at_memory_trains_in_plain_order() -> None:
    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv2d(1, 4, 3), nn.Linear(144, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv(x)
            return self.last(x.view(len(x), 144))

    assert list(train(Viewing(), PGDTraining(steps=1), digits(), SHORT))[-1].end == "finished"


def test_without_labels_there_is_less_to_choose_from() -> None:
    rows = in_memory(digits().rows(torch.arange(80)))
    with pytest.raises(ValueError, match="plain learns from labels"):
        train(mlp(), Plain(), rows)
    assert list(train(mlp(), IMSAT(), rows, SHORT))[-1].end == "finished"
    with pytest.raises(ValueError, match="pgd cannot learn from rows without labels"):
        train(mlp(), PGDTraining(), digits(), unlabelled=rows)
    with pytest.raises(ValueError, match="neighbour: each row has 4 others, not 10"):
        train(mlp(), IMSAT(), in_memory(torch.rand(5, 1, 8, 8)))


def test_an_epoch_is_a_pass_over_the_longer_of_both_kinds_of_rows() -> None:
    rows = in_memory(digits(400).rows(torch.arange(400)))
    told = list(train(mlp(), VAT(), digits(), Training(epochs=1, batch=40, unlabelled_batch=50, monitor=0), unlabelled=rows, every=1))
    assert len(told) == 8


def test_labels_the_model_has_no_class_for_are_refused() -> None:
    x = torch.rand(6, 64)
    with pytest.raises(ValueError, match="labels go from 0 to 12, but the model has 10 classes"):
        train(mlp(), Plain(), in_memory(x, torch.tensor([0, 1, 2, 3, 4, 12])))
    with pytest.raises(ValueError, match="no parameters"):
        train(nn.Flatten(), Plain(), in_memory(x, torch.zeros(6, dtype=torch.int64)))
    with pytest.raises(ValueError, match="no rows"):
        train(mlp(), Plain(), in_memory(x[:0], torch.zeros(0, dtype=torch.int64)))


def test_transforms_of_what_is_no_picture_are_refused() -> None:
    data = in_memory(torch.rand(20, 64), torch.zeros(20, dtype=torch.int64))
    for spec, settings in ((LDS(by=("flip",)), SHORT), (Plain(), SHORT.model_copy(update={"augment": ("flip",)}))):
        with pytest.raises(ValueError, match="flip needs pictures"):
            list(train(mlp(), spec, data, settings))


def test_a_state_of_another_training_is_refused(tmp_path) -> None:
    told = next(train(mlp(), Plain(), digits(), SHORT))
    state = told.state()
    with pytest.raises(ValueError, match="another training: defense differ"):
        train(mlp(), VAT(), digits(), SHORT, state=state)
    with pytest.raises(ValueError, match="training, rows differ"):
        train(mlp(), Plain(), digits(100), SHORT.model_copy(update={"seed": 3}), state=state)
    (tmp_path / "other").write_bytes(b"no safetensors")
    with pytest.raises(ValueError, match="holds no state"):
        State.load(tmp_path / "other")


def test_a_finished_training_resumed_is_finished(tmp_path) -> None:
    model, again = mlp(), mlp(3)
    list(train(model, Plain(), digits(), SHORT))[-1].state().save(tmp_path / "state")
    (told,) = train(again, Plain(), digits(), SHORT, state=State.load(tmp_path / "state"))
    assert told.end == "finished"
    assert same(again, model)
