"""What holds of every defense of the contract. A new one stands under these by being listed there."""

import pytest
import torch
from defenses.cases import EVERY, IDS, batch, convolutional, digits, mlp, normed, same, tensors
from torch import Tensor, nn

from sparring.attacks import random
from sparring.contract.defenses import DEFENSES, Adversarial, AnyDefense, Plain, Training
from sparring.defenses.catalogue import recipe
from sparring.defenses.data import facts, in_memory
from sparring.defenses.perturb import around
from sparring.defenses.recipe import Turn
from sparring.defenses.state import State
from sparring.defenses.training import Progress, train
from sparring.defenses.views import Views

every = pytest.mark.parametrize("spec", EVERY, ids=IDS)
SHORT = Training(epochs=2, batch=40, monitor=8)
ONCE = Training(epochs=1, batch=40, monitor=0)


def trained(model: nn.Module, spec: AnyDefense, settings: Training = SHORT, **given) -> nn.Module:
    assert list(train(model, spec, digits(), settings, **given))[-1].end == "finished"
    return model


def made(spec: AnyDefense):
    return recipe(spec, facts(digits()), digits())


@pytest.mark.parametrize("kind", [kind for kind in DEFENSES if kind.neutral is not None], ids=lambda kind: kind().kind)
@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (mlp, Training(epochs=2, batch=40, optimizer="sgd", augment=("shift",), clip=1.0, average="ema")),
        (convolutional, SHORT),
    ],
)
def test_at_its_neutral_settings_it_is_plain_training_bit_for_bit(kind, make, settings: Training) -> None:
    plain = trained(make(), Plain(), settings)
    assert same(trained(make(), kind(**kind.neutral), settings), plain)
    assert not same(plain, make())


@every
def test_in_its_own_settings_it_is_not_plain_training(spec: AnyDefense) -> None:
    assert same(trained(mlp(), spec, ONCE), trained(mlp(), Plain(), ONCE)) == (spec.kind == "plain")


@every
def test_same_seed_same_weights_and_another_seed_others(spec: AnyDefense) -> None:
    first = trained(normed(), spec, ONCE)
    torch.manual_seed(99)  # what others draw has no say in it
    assert same(trained(normed(), spec, ONCE), first)
    assert not same(trained(normed(), spec, ONCE.model_copy(update={"seed": 1})), first)


@every
def test_the_draws_of_a_row_are_its_own(spec: AnyDefense) -> None:
    """A row is moved as it would be alone in the batch."""
    perturb, views, whole = made(spec).perturb, Views(mlp().double()), batch()
    whole = whole._replace(x=whole.x.double())
    moved = perturb(views, whole)
    part = torch.tensor([3, 7])
    alone = perturb(views, whole._replace(x=whole.x[part], y=whole.y[part], key=whole.key[part], row=whole.row[part]))
    assert torch.allclose(moved[part], alone, atol=1e-6)


@pytest.mark.parametrize(("spec", "cut"), [(spec, 1 + at % 2) for at, spec in enumerate(EVERY)], ids=IDS)
def test_a_training_cut_anywhere_goes_on_to_the_same_weights(spec: AnyDefense, cut: int, tmp_path) -> None:
    """2 batches an epoch: cut within the first, or at its end."""
    settings = SHORT.model_copy(update={"awp": 0.01, "average": ("ema", "swa")[cut % 2], "epochs": 2})
    if spec.kind == "free":
        settings = settings.model_copy(update={"epochs": 8})
    whole, model, again = normed(), normed(), normed(seed=5)
    ended = list(train(whole, spec, digits(), settings, every=1))[-1].state()
    for at, told in enumerate(train(model, spec, digits(), settings, every=1), 1):
        if at == cut:
            told.state().save(tmp_path / "state.safetensors")
            break
    resumed = list(train(again, spec, digits(), settings, state=State.load(tmp_path / "state.safetensors")))[-1].state()
    assert same(again, whole)
    assert resumed.facts == ended.facts
    assert resumed.tensors.keys() == ended.tensors.keys()
    assert all(torch.equal(tensor, resumed.tensors[name]) for name, tensor in ended.tensors.items())


@every
def test_moved_rows_stay_in_ball_and_bounds_and_leave_no_trace(spec: AnyDefense) -> None:
    model, given = normed(), batch()
    views = Views(model)
    before = tensors(model)
    moved = made(spec).perturb(views, given)
    assert moved.shape == given.x.shape
    assert not moved.requires_grad
    assert moved.min() >= 0
    assert moved.max() <= 1
    if isinstance(spec, Adversarial):
        assert around(spec.norm, spec.radius(1.0), given).contains(moved).all()
    else:
        assert torch.equal(moved, given.x)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize(
    "spec", [spec for spec in EVERY if isinstance(spec, Adversarial) and spec.kind != "yopo"], ids=lambda spec: spec.kind
)
def test_what_teaches_stays_in_ball_and_bounds_too(spec) -> None:
    """Updates that move rows themselves: every point that the labels are learnt at is legal."""
    given, seen = batch(), []

    def objective(views: Views, own, x: Tensor) -> Tensor:
        seen.append(x.detach())
        return nn.functional.cross_entropy(views.live(x), own.y)

    views = Views(mlp())
    turn = Turn(views, given, objective, lambda compute: compute() and None)
    made(spec).update(turn, made(spec).perturb(views, given), {})
    assert all(around(spec.norm, spec.radius(1.0), given).contains(x).all() for x in seen)
    assert seen


@every
def test_the_loss_falls(spec: AnyDefense) -> None:
    settings = Training(epochs=12 * getattr(spec, "replays", 1), batch=40, rate=0.01, monitor=0)
    told = list(train(mlp(), spec, digits(), settings))
    assert told[-1].loss < told[0].loss


class Counted(nn.Module):
    """Counts the passes that slopes are taken of. Its copies share the count."""

    passes = 0

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x)
        Counted.passes += torch.is_grad_enabled() and isinstance(x, Tensor)  # the other kind is a tracer's
        return logits


@pytest.mark.parametrize("spec", [spec for spec in EVERY if spec.kind != "gradient_penalty"], ids=lambda spec: spec.kind)
def test_it_costs_the_gradients_it_declares(spec: AnyDefense) -> None:
    rules, views, given = made(spec), Views(Counted(mlp())), batch()
    Counted.passes = 0
    rules.update(Turn(views, given, rules.objective, lambda compute: compute() and None), rules.perturb(views, given), {})
    assert Counted.passes == spec.gradients


@every
def test_rows_of_numbers_and_pictures_with_colours(spec: AnyDefense) -> None:
    torch.manual_seed(0)
    for shape in ((7,), (3, 6, 5)):
        if len(shape) == 1 and set(getattr(spec, "by", ())) - {"noise"}:
            continue
        x = torch.rand(30, *shape) * 6 - 3
        data = in_memory(x, torch.randint(0, 2, (30,)), None)
        model = nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), 9), nn.Tanh(), nn.Linear(9, 2))
        ends: list[Progress] = list(train(model, spec, data, Training(epochs=1, batch=16)))
        assert ends[-1].end == "finished"


def test_random_streams_of_a_row_are_not_each_others() -> None:
    key = random.keys(0, torch.arange(4))
    assert len({int(value) for stream in range(100) for value in random.fork(key, stream)}) == 400
