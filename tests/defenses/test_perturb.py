"""How rows are moved."""

import pytest
import torch
from defenses.cases import batch, digits, mlp

from sparring.attacks import random
from sparring.contract.defenses import ALP, MART, TRADES, AnyDefense, FriendlyTraining, PGDTraining, Plain, Training
from sparring.defenses.catalogue import recipe
from sparring.defenses.data import facts
from sparring.defenses.perturb import START, around
from sparring.defenses.training import train
from sparring.defenses.views import Views


@pytest.mark.parametrize("kind", [PGDTraining, TRADES, MART, ALP])
def test_ball_and_steps_grow_over_the_ramp(kind) -> None:
    views, given = Views(mlp()), batch()

    def moved(ramp: float, done: float) -> torch.Tensor:
        spec = kind(eps=0.2, alpha=0.2, steps=2, ramp=ramp)
        return recipe(spec, facts(digits()), digits()).perturb(views, given._replace(done=done))

    assert torch.equal(moved(0.5, 0.0), given.x)
    assert around("linf", 0.1, given).contains(moved(0.5, 0.25)).all()
    assert not around("linf", 0.099, given).contains(moved(0.5, 0.25)).any()
    for done in (0.5, 0.9):
        assert torch.equal(moved(0.5, done), moved(0.0, 0.0))


@pytest.mark.parametrize("further", [0, 1, 2, 100])
def test_a_friendly_row_takes_the_steps_of_pgd_and_stops_soon_after_it_is_misclassified(further: int) -> None:
    torch.manual_seed(0)
    views, given, steps = Views(mlp()), batch(40), 6
    settings = Training(epochs=30, batch=40, monitor=0)
    list(train(views.model, Plain(), digits(), settings))
    views = Views(views.model)

    def moved(spec: AnyDefense) -> torch.Tensor:
        return recipe(spec, facts(digits()), digits()).perturb(views, given)

    path = [around("linf", 0.3, given).sample(random.fork(given.key, START))]
    path += [moved(PGDTraining(eps=0.3, steps=count)) for count in range(1, steps + 1)]
    wrong = torch.stack([views.still(x).argmax(1) != given.y for x in path])
    before = wrong.cumsum(0) - wrong.long()
    stops = (wrong & (before >= further)).float()
    stops[steps] = 1
    last = stops.argmax(0)
    assert set(last.tolist()) > {steps} or further == 100
    found = moved(FriendlyTraining(eps=0.3, steps=steps, further=further))
    assert torch.equal(found, torch.stack(path)[last, torch.arange(40)])
