"""What an attacker without slopes does: other models' examples shown to the target, and a model trained on its answers."""

import torch
from attacks.cases import Spy, Taught, pictures, problem, target
from torch import Tensor, nn

from sparring.attacks import catalogue
from sparring.attacks.access import Target
from sparring.attacks.engine import climb, strongest
from sparring.attacks.losses import ce
from sparring.attacks.parts import backprop, centre, leap
from sparring.attacks.transfer import Mean, substitute, transfer
from sparring.contract.attacks import FGSM, PGD, Transfer

ONE_STEP = climb(backprop(ce), leap, 1, centre, strongest)


def linear(weights: Tensor) -> nn.Module:
    """Logits (0, w.x) of rows (B, 1, 1, 2)."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.stack((torch.zeros(2), weights)))
    return model


def rows() -> Tensor:
    return torch.tensor([[0.2, 0.0], [0.0, 0.2]]).reshape(2, 1, 1, 2)


def test_a_row_is_broken_if_any_surrogate_breaks_it_and_costs_one_query_each_until_then() -> None:
    """The target looks at the first number and then at the second; each surrogate knows one of them."""
    judge = linear(torch.tensor([1.0, 1.0]))
    spy = Spy(target(judge), "decision")
    first, second = (target(linear(torch.tensor(w))) for w in ([1.0, -1.0], [1.0, 1.0]))
    asked = problem(rows(), torch.ones(2, dtype=torch.int64), "linf", 0.15)
    outcome = transfer(ONE_STEP, [first, second])(spy, asked)
    assert outcome.success.tolist() == [True, True]
    assert outcome.queries.tolist() == [2, 2]
    alone = transfer(ONE_STEP, [second, first])(spy, asked)
    assert alone.queries.tolist() == [1, 1], "a row that is broken is not shown again"
    whole = transfer(ONE_STEP, [second, first])(spy, asked._replace(stop=False))
    assert whole.queries.tolist() == [2, 2]
    assert torch.equal(whole.x, alone.x), "the first success is kept"
    assert spy.asked == 4 + 2 + 4


def test_only_the_target_says_what_is_broken() -> None:
    model, other, x = linear(torch.tensor([1.0, 1.0])), linear(torch.tensor([-1.0, -1.0])), rows()
    asked = problem(x, torch.ones(2, dtype=torch.int64), "linf", 0.15)
    outcome = transfer(ONE_STEP, [target(other)])(Spy(target(model), "decision"), asked)
    assert not outcome.success.any(), "what the surrogate takes for a break leads the target the other way"
    assert torch.allclose(outcome.x, x + 0.15), "what was shown is kept all the same"


def test_examples_of_a_surrogate_run_the_full_course() -> None:
    """Stopping where the surrogate is just broken would leave examples that break nothing else."""
    x = pictures(4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    labels = target(model).labels(x)
    spec = Transfer(attack=PGD(steps=6, start="clean"))
    own = target(model)
    catalogue.run(spec, 0.3, Spy(target(model), "decision"), problem(x, labels, "linf", 0.3), Taught(own))
    assert own.spent.backwards == 4 * 6


def test_an_ensemble_answers_with_the_mean_of_the_logits() -> None:
    members = [linear(torch.tensor([1.0, 0.0])), linear(torch.tensor([0.0, 3.0]))]
    assert torch.allclose(Mean(members)(rows()), linear(torch.tensor([0.5, 1.5]))(rows()))


class Oracle:
    """Counts the rows asked for."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.asked = model, 0

    def __call__(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        return self.model(x).argmax(1)


def learnt(x: Tensor, classes: Tensor) -> Target:
    """A "trained" model whose slopes are known."""
    return target(linear(torch.tensor([1.0, -2.0])), tile=3)


def test_a_substitute_doubles_its_rows_along_the_jacobian_and_turns_every_three_rounds() -> None:
    oracle = Oracle(linear(torch.tensor([1.0, 1.0])))
    seeds = torch.full((2, 1, 1, 2), 0.5)
    _, x = substitute(oracle, seeds, 6, 0.1, None, learnt)
    assert oracle.asked == len(x) == 2 * 2**5
    way = torch.tensor([0.1, -0.1])  # the slope of the logit of class 1, which the oracle gives to every row here
    seen, x = seeds.reshape(2, 2), x.reshape(-1, 2)
    for number in range(5):
        seen = torch.cat((seen, seen + (way if number < 3 else -way)))
    assert torch.allclose(x, seen)


def test_children_stay_within_the_bounds_and_may_follow_the_loss_instead() -> None:
    oracle, seeds = Oracle(linear(torch.tensor([1.0, 1.0]))), torch.full((2, 1, 1, 2), 0.95)
    _, x = substitute(oracle, seeds, 2, 0.1, (0.0, 1.0), learnt)
    assert torch.allclose(x[2:].reshape(2, 2), torch.tensor([1.0, 0.85]).expand(2, 2))
    _, x = substitute(oracle, seeds, 2, 0.1, (0.0, 1.0), learnt, jacobian=False)
    assert torch.allclose(x[2:].reshape(2, 2), torch.tensor([0.85, 1.0]).expand(2, 2))


def test_a_white_box_attack_within_another_is_never_handed_the_target() -> None:
    spec, x = Transfer(attack=FGSM()), pictures(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    spy = Spy(target(model), "decision")
    own = target(model)
    outcome = catalogue.run(spec, 0.1, spy, problem(x, own.labels(x), "linf", 0.1), Taught(own))
    assert spy.asked == 3 == int(outcome.queries.sum())
