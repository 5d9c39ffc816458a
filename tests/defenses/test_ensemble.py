"""Rows moved against one model of several: which one, by how much, and what becomes of the others. Against loops written down anew."""

from collections import Counter

import pytest
import torch
from defenses.cases import batch, digits, mlp, normed, same, tensors
from torch import Tensor, nn

from sparring.attacks import random
from sparring.contract.defenses import EnsembleTraining, FGSMTraining, PGDTraining, Plain, Training
from sparring.defenses.catalogue import recipe
from sparring.defenses.data import Batch, facts
from sparring.defenses.perturb import source
from sparring.defenses.state import State
from sparring.defenses.training import hand_out, train
from sparring.defenses.views import Views

EPS = 0.1
SHORT = Training(epochs=3, batch=20, monitor=0)
"""4 batches an epoch."""


def rivals() -> list[nn.Module]:
    """Two networks that nobody has frozen; the second draws no mask, and follows no statistics, because it is not in training."""
    return [mlp(5, 16).eval(), normed(6).eval()]


def moved(views: Views, given: Batch, surrogates: list[nn.Module], **settings: object) -> Tensor:
    return recipe(EnsembleTraining(eps=EPS, **settings), facts(digits()), digits(), surrogates).perturb(views, given)


def of_source(wanted: int, count: int) -> Batch:
    """Twelve rows under a seed for which this source is drawn."""
    return next(given for seed in range(100) if source(given := batch(seed=seed), count) == wanted)


def stepped(model: nn.Module, given: Batch, labels: Tensor) -> Tensor:
    """Clipped x + eps sign of the slope, after Tramèr et al."""
    x = given.x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(nn.functional.cross_entropy(model(x), labels), x)
    return (given.x + EPS * grad.sign()).clamp(0, 1)


@pytest.mark.parametrize("labels", ["true", "predicted"])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_batch_is_moved_by_one_step_against_the_model_that_is_drawn(at: int, labels: str) -> None:
    learning, others = mlp(), rivals()
    given = of_source(at, 3)
    drawn = [learning, *others][at]
    told = drawn(given.x).argmax(1)
    assert not torch.equal(told, given.y), "the two kinds of labels could not be told apart"
    found = moved(Views(learning), given, others, labels=labels)
    assert torch.allclose(found, stepped(drawn, given, given.y if labels == "true" else told), atol=1e-6)


def test_each_source_is_drawn_as_often_as_any_other_and_by_the_key_of_the_batch_alone() -> None:
    keys = random.fork(random.keys(0, torch.arange(6000)), 7)
    given = [batch(1)._replace(key=key[None]) for key in keys]
    for count in (2, 3, 5):
        drawn = Counter(source(each, count) for each in given)
        assert set(drawn) == set(range(count))
        expected = len(given) / count
        assert sum((times - expected) ** 2 / expected for times in drawn.values()) < 20, "chi-squared beyond 1 in 1,000 by far"
    whole = batch(12)
    assert source(whole, 1 << 20) == source(whole._replace(x=1 - whole.x, y=whole.y.flip(0), done=0.7), 1 << 20)
    assert source(whole, 1 << 20) != source(whole._replace(key=whole.key.flip(0)), 1 << 20)


def test_what_a_surrogate_teaches_does_not_depend_on_the_weights_that_learn() -> None:
    others = rivals()
    for at in (0, 1, 2):
        given = of_source(at, 3)
        one, two = (moved(Views(mlp(seed)), given, others) for seed in (0, 9))
        assert torch.equal(one, two) == (at > 0)


def test_surrogates_are_left_as_they_are() -> None:
    others = rivals()
    before = [tensors(each) for each in others]
    used = {source(batch(seed=seed), 3) for seed in range(10)}
    assert used == {0, 1, 2}
    learning = mlp()
    list(train(learning, EnsembleTraining(eps=EPS), digits(), SHORT, surrogates=others))
    assert not same(learning, mlp())
    for each, old in zip(others, before, strict=True):
        assert not each.training
        assert all(weight.grad is None and weight.requires_grad for weight in each.parameters())
        assert all(torch.equal(tensor, old[name]) for name, tensor in each.state_dict().items())


def test_other_surrogates_other_weights() -> None:
    def trained(*surrogates: nn.Module) -> nn.Module:
        model = mlp()
        list(train(model, EnsembleTraining(eps=EPS), digits(), SHORT, surrogates=surrogates))
        return model

    assert same(trained(*rivals()), trained(*rivals()))
    assert not same(trained(*rivals()), trained(*rivals()[::-1]))
    assert not same(trained(*rivals()), trained())


def test_alone_on_moved_rows_by_their_labels_it_is_fgsm_training_bit_for_bit() -> None:
    one, two = normed(), normed()
    list(train(one, EnsembleTraining(eps=EPS, clean=False, labels="true"), digits(), SHORT))
    list(train(two, FGSMTraining(eps=EPS, guard=0), digits(), SHORT))
    assert same(one, two)


def test_without_a_radius_it_is_plain_training_bit_for_bit_whatever_the_surrogates() -> None:
    plain = mlp()
    list(train(plain, Plain(), digits(), SHORT))
    for clean in (True, False):
        model = mlp()
        list(train(model, EnsembleTraining(eps=0, clean=clean), digits(), SHORT, surrogates=rivals()))
        assert same(model, plain)


@pytest.mark.parametrize("clean", [True, False])
def test_it_learns_from_clean_and_moved_rows_equally_or_from_moved_ones_alone(clean: bool) -> None:
    model, given = mlp(), batch()
    x = (given.x + 0.1).clamp(0, 1)
    both = torch.cat((given.x, x)) if clean else x
    expected = nn.functional.cross_entropy(model(both), given.y.repeat(2 if clean else 1))
    objective = recipe(EnsembleTraining(clean=clean), facts(digits()), digits()).objective
    loss = objective(Views(model), given, x)
    assert torch.allclose(loss, expected, atol=1e-6)
    slopes = [torch.autograd.grad(each, list(model.parameters())) for each in (loss, expected)]
    assert all(torch.allclose(one, two, atol=1e-6) for one, two in zip(*slopes, strict=True))


@pytest.mark.parametrize("cut", [1, 4, 6])
def test_a_training_cut_anywhere_goes_on_to_the_same_weights(cut: int, tmp_path) -> None:
    """In the middle of the first epoch, at its end, and in the middle of the second."""
    spec, settings = EnsembleTraining(eps=EPS), SHORT.model_copy(update={"average": "swa"})
    whole, model, again, handed = normed(), normed(), normed(8), normed(9)
    ended = list(train(whole, spec, digits(), settings, surrogates=rivals()))[-1].state()
    for at, told in enumerate(train(model, spec, digits(), settings, surrogates=rivals(), every=1), 1):
        if at == cut:
            told.state().save(tmp_path / "state")
            break
    torch.manual_seed(99)
    list(train(again, spec, digits(), settings, surrogates=rivals(), state=State.load(tmp_path / "state")))
    assert same(again, whole)
    hand_out(handed, spec, digits(), ended, settings, surrogates=rivals())
    assert same(handed, whole)


def test_a_surrogate_that_draws_at_random_draws_the_same_again() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = mlp(4)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.inner(x + 0.3 * torch.randn_like(x))
            return logits

    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(mlp())
        torch.manual_seed(seed)
        list(train(found[-1], EnsembleTraining(eps=EPS), digits(), SHORT, surrogates=[Noisy().eval()]))
    assert same(*found)


def test_surrogates_for_who_uses_none_are_refused_and_a_state_knows_how_many_there_were() -> None:
    with pytest.raises(ValueError, match="pgd moves no rows against surrogates: leave them out, or choose ensemble"):
        train(mlp(), PGDTraining(), digits(), surrogates=rivals())
    state = next(train(mlp(), EnsembleTraining(), digits(), SHORT, surrogates=rivals())).state()
    with pytest.raises(ValueError, match="another training: surrogates differ"):
        train(mlp(), EnsembleTraining(), digits(), SHORT, state=state, surrogates=rivals()[:1])
