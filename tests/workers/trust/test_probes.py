"""What the measurements find on models of which it is known: a linear one, and ones that hide something."""

import pytest
import torch
from torch import Tensor, nn

from sparring.attacks import random
from sparring.attacks.access import Target
from sparring.attacks.engine import climb, latest
from sparring.attacks.losses import ce
from sparring.attacks.norms import ball
from sparring.attacks.parts import ascend, backprop, centre
from sparring.attacks.problem import Goal, problem
from sparring.contract.attacks import APGD, BIM, FGSM, PGD, Square
from sparring.contract.threat import Norm
from sparring.workers.trust import probes
from sparring.workers.trust.probes import Stand, main_attack
from sparring.workers.trust.sample import sample
from sparring.workers.trust.watch import Watch

ROWS = 48


class Linear(nn.Module):
    """Two classes, told apart by the sum of eight numbers about one half."""

    def forward(self, x: Tensor) -> Tensor:
        score = (x - 0.5).sum(1)
        return torch.stack((-score, score), 1)


def rows() -> tuple[Tensor, Tensor]:
    """Rows (48, 8) whose mean is from 0.01 to 0.24 away from one half, and their classes."""
    away = torch.arange(ROWS) % 24 + 1
    side = torch.where(torch.arange(ROWS) < 24, -1.0, 1.0)
    return 0.5 + (side * away * 0.01)[:, None].expand(ROWS, 8).clone(), (side > 0).long()


def stand(model: nn.Module, eps: float = 0.1, norm: Norm = "linf") -> Stand:
    x, y = rows()
    target = Target(model, model, 64)
    posed = problem(Goal(y), ball(norm, x, torch.full((ROWS,), eps, dtype=torch.float64), (0.0, 1.0)), random.keys(0, torch.arange(ROWS)))
    return Stand(target, posed, eps, torch.ones(ROWS, dtype=torch.bool))


class Through(nn.Module):
    """The linear model behind a function."""

    def __init__(self, before) -> None:
        super().__init__()
        self.before = before

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = Linear()(self.before(x))
        return scores


def test_slopes_tell_what_is_flat_and_what_only_saturates() -> None:
    def seen(model: nn.Module) -> tuple[int, int]:
        given = stand(model)
        found = probes.slopes(given.target, given.problem.goal, given.problem.x)
        assert found.rows == ROWS
        return found.flat, found.saturated

    assert seen(Linear()) == (0, 0)
    assert seen(Through(lambda x: torch.round(x * 100) / 100)) == (ROWS, 0)
    assert seen(Through(torch.detach)) == (ROWS, 0)

    class Loud(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 1e4 * super().forward(x)

    assert seen(Loud()) == (0, ROWS)


def test_the_scale_of_the_scores() -> None:
    given = stand(Linear())
    found = probes.scale(given.target, given.problem.x)
    assert found.spread == pytest.approx(2 * 8 * 0.125, rel=0.05), "twice the score of the middle row"
    assert found.share == pytest.approx(2)


def test_nothing_stands_where_everything_is_allowed_unless_the_slope_is_hidden() -> None:
    def standing(model: nn.Module, bounds: tuple[float, float] | None) -> int:
        given = stand(model)
        return probes.whole(given.target, given.problem.goal, given.problem.x, bounds, given.problem.key).standing

    assert standing(Linear(), (0.0, 1.0)) == 0
    assert standing(Linear(), None) == 0
    assert standing(Through(lambda x: x.detach() + 0 * x), (0.0, 1.0)) > 0


def test_an_ascent_is_watched_to_its_end() -> None:
    """Of each class ten rows are within eps, the nearest of all of them on the first step."""
    for spec in (PGD(steps=12), APGD(steps=12)):
        found = probes.course(stand(Linear(), eps=0.1005), spec)
        assert (found.several, found.standing, found.single) == (20, 28, 20)
        assert (found.silent, found.outside, found.faulty, found.disputed, found.single_alone) == (0, 0, 0, 0, 0)
        assert found.last == 3


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_other_norms_have_their_own_single_step(norm: Norm) -> None:
    eps = {"l2": 0.1005 * 8**0.5, "l1": 0.1005 * 8}[norm]
    found = probes.course(stand(Linear(), eps, norm), APGD(steps=40))
    assert found.outside == 0
    assert abs(found.several - 20) <= 2


def test_a_step_too_short_to_arrive_still_rises() -> None:
    late = probes.course(stand(Linear()), PGD(steps=12, alpha=1e-4, start="clean"))
    assert late.standing == late.rising == ROWS


def test_an_attack_that_forgets_what_it_found_is_caught() -> None:
    """The loop keeps the best point; one that keeps the last, of a rule that walks back, is what the check is for."""
    given = stand(Linear(), eps=0.1005)
    watch = Watch(backprop(ce), ROWS, 3, torch.device("cpu"))

    def there_and_back() -> object:
        rule = ascend(0.2)

        def step(point, state, problem, t):
            moved, state = rule.step(point, state, problem, t)
            return torch.where((t == 0)[:, None], moved, problem.x), state

        return rule._replace(step=step)

    attack = climb(watch, there_and_back(), 2, centre, latest)
    outcome = attack(given.target, given.problem._replace(stop=False))
    assert int(watch.broken.sum()) == 20
    assert not outcome.success.any()
    assert torch.equal(watch.broken & ~outcome.success, watch.broken)


def test_more_steps_and_another_unit_change_nothing_about_a_linear_model() -> None:
    given = stand(Linear(), eps=0.1005)
    standing = torch.tensor([row % 24 >= 10 for row in range(ROWS)])
    again = probes.longer(given._replace(standing=standing), PGD(steps=10))
    assert (again.rows, again.fell) == (28, 0)
    assert probes.longer(given, PGD(steps=10)).fell == 20, "rows that were said to stand and do not"
    found = probes.tenfold(given)
    assert found.plain == found.tenfold == 20
    assert probes.asked(given._replace(standing=standing)).fell == 0


def test_the_margin_trembles_where_the_model_does() -> None:
    calm = probes.tremor(stand(Linear(), eps=0.01)).change
    wild = probes.tremor(stand(Through(lambda x: x + torch.sin(1e4 * x)), eps=0.01)).change
    assert calm < 0.2 < 0.5 < wild
    assert probes.tremor(stand(Linear(), eps=0.01)).change == calm, "the draws are those of the rows' keys"


def test_the_attack_that_is_watched_is_the_jobs_own() -> None:
    assert main_attack((FGSM(), PGD(steps=10), APGD(loss="dlr", targets=9), Square()), "linf") == APGD(loss="dlr")
    assert main_attack((PGD(steps=40, restarts=3, loss="difference"),), "linf") == PGD(steps=40)
    assert main_attack((BIM(steps=7),), "linf") == PGD(steps=7, start="clean")
    assert main_attack((FGSM(), Square()), "linf") == PGD(steps=probes.STEPS)
    assert main_attack((Square(),), "linf") is None


def test_half_of_the_sample_stood_where_enough_did() -> None:
    right = torch.arange(1000).numpy() % 10 != 0
    stands = right & (torch.arange(1000).numpy() < 500)
    chosen = sample(right, stands, 3)
    assert len(set(chosen.tolist())) == 64
    assert right[chosen].all()
    assert stands[chosen].sum() == 32
    assert (chosen == sample(right, stands, 3)).all()
    assert (chosen != sample(right, stands, 4)).any()
    few = right & (torch.arange(1000).numpy() < 12)
    assert few[sample(right, few, 0)].sum() == few.sum(), "all there are"
    assert stands[sample(stands, stands, 0)].sum() == 64, "only such as stood"
    assert len(sample(right & ~right, right & ~right, 0)) == 0
