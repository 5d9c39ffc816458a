"""How rows are moved."""

import pytest
import torch
from defenses.cases import batch, digits, mlp

from sparring.contract.defenses import MART, TRADES, PGDTraining
from sparring.defenses.catalogue import recipe
from sparring.defenses.data import facts
from sparring.defenses.perturb import around
from sparring.defenses.views import Views


@pytest.mark.parametrize("kind", [PGDTraining, TRADES, MART])
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
