"""Virtual adversarial training and its random counterpart, against closed forms."""

import pytest
import torch
from defenses.cases import batch, digits, mlp, normed, tensors
from torch import nn

from sparring.attacks import random
from sparring.contract.defenses import VAT, Training
from sparring.defenses.data import Batch, in_memory, permutation
from sparring.defenses.objectives import kl
from sparring.defenses.smoothness import Rows, direction, entropy, imsat, lds, vat, virtual
from sparring.defenses.training import train
from sparring.defenses.views import Views

functional = nn.functional


def logistic(size: int = 6) -> nn.Module:
    """Two classes, logits (0, w.x)."""
    torch.manual_seed(0)
    model = nn.Linear(size, 2, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight[0] = 0
    return model


def rows(x: torch.Tensor, model: nn.Module) -> Rows:
    return Rows(x, random.keys(0, torch.arange(len(x))), model(x).detach())


@pytest.mark.parametrize("iterations", [1, 3])
def test_on_a_logistic_model_the_direction_is_its_weights(iterations: int) -> None:
    model = logistic()
    x = torch.randn(20, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = direction(Views(model), rows(x, model), 1e-4, iterations)
    w = model.weight[1].detach()
    cosine = found @ w / (found.norm(dim=1) * w.norm())
    assert torch.allclose(cosine.abs(), torch.ones(20, dtype=torch.float64), atol=1e-9)


def test_on_a_logistic_model_the_divergence_is_that_of_two_coins() -> None:
    model, eps = logistic(), 0.7
    x = torch.randn(20, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = virtual(Views(model), rows(x, model), eps, 1e-4, 1)
    score, w = x @ model.weight[1].detach(), model.weight[1].detach().norm()
    p = score.sigmoid()

    def coins(q: torch.Tensor) -> torch.Tensor:
        return p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()

    ways = torch.stack([coins((score + sign * eps * w).sigmoid()) for sign in (1, -1)])
    assert (ways - found).abs().amin(0).max() < 1e-9


def test_slopes_go_through_the_moved_prediction_alone() -> None:
    """d/dw of KL(p || p(x + r)) with p and r held constant."""
    model = logistic()
    x = torch.randn(9, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    asked, views = rows(x, model), Views(model)
    (found,) = torch.autograd.grad(virtual(views, asked, 0.5, 1e-4, 1).mean(), model.weight)
    d = direction(views, asked, 1e-4, 1)
    there = x + 0.5 * d / d.norm(dim=1, keepdim=True)
    off = model(there).softmax(1).detach() - asked.logits.softmax(1)
    assert torch.allclose(found, off.T @ there / 9)


def fisher(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """J^T (diag p - p p^T) J (B, d, d)."""
    jacobian = torch.stack([torch.autograd.functional.jacobian(lambda row: model(row[None])[0], row) for row in x]).flatten(2)
    p = model(x).softmax(1).detach()
    return jacobian.transpose(1, 2) @ (torch.diag_embed(p) - p[:, :, None] * p[:, None]) @ jacobian


def test_power_iterations_find_the_top_of_the_fisher_information() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    x = torch.randn(10, 8, dtype=torch.float64)
    top = torch.linalg.eigh(fisher(model, x)).eigenvectors[:, :, -1]
    found = direction(Views(model), rows(x, model), 1e-5, 60)
    assert (((found * top).sum(1) / found.norm(dim=1)).abs() > 0.999).all()


def test_for_small_noise_the_random_divergence_is_half_the_trace() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    x = torch.randn(1, 8, dtype=torch.float64).expand(20_000, 8)
    given = Batch(x, torch.zeros(len(x), dtype=torch.int64), random.keys(0, torch.arange(len(x))), torch.arange(len(x)), None)
    views = Views(model)
    loss = lds(("noise",), 0.01, 1, 1.0)(views, given, x) - functional.cross_entropy(model(x), given.y)
    trace = fisher(model, x[:1])[0].trace().detach()
    assert abs(float(loss.detach() / (0.5 * 0.01**2 * trace / 8)) - 1) < 0.03  # a vector of length eps has variance eps^2 / d in each entry


def test_every_row_has_its_own_length() -> None:
    """A row a thousand times as large changes nothing for the others."""
    views, given = Views(mlp()), batch()
    asked = Rows(given.x, given.key, views.model(given.x).detach())
    mixed = asked._replace(x=torch.cat((given.x[:6], given.x[6:] * 1000)))
    mixed = mixed._replace(logits=views.model(mixed.x).detach())
    assert torch.allclose(virtual(views, asked, 0.5, 0.02, 1)[:6], virtual(views, mixed, 0.5, 0.02, 1)[:6], rtol=1e-4)


def test_passes_of_an_update_share_their_dropout_masks() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 10))
    views, x = Views(model), batch().x
    views.reseed(3)
    clean = views.live(x)
    for view in (views.live, views.quiet, views.masked):
        assert kl(clean, view(x)).abs().max() < 1e-6
    views.reseed(4)
    assert kl(clean, views.live(x)).max() > 1e-3


@pytest.mark.parametrize("make", [lambda: vat(0.5, 0.02, 1, 1.0, 0.1, 0.0), lambda: lds(("noise",), 0.5, 2, 1.0)])
def test_running_statistics_learn_from_the_labelled_pass_alone(make) -> None:
    given = batch()
    first, second = normed(), normed()
    make()(Views(first), given._replace(spare=given.x.flip(0) * 0.5, spare_key=given.key), given.x)
    Views(second).live(given.x)
    assert all(torch.equal(one, two) for one, two in zip(tensors(first).values(), tensors(second).values(), strict=True))


def test_the_entropy_counts_from_its_ramp_on() -> None:
    views, given = Views(mlp()), batch()
    plain = vat(0.5, 0.02, 1, 1.0, 0.0, 0.5)(views, given, given.x)
    full = entropy(views.model(given.x)).mean()
    for done, share in ((0.0, 0.0), (0.5, 0.0), (0.75, 0.5), (1.0, 1.0)):
        found = vat(0.5, 0.02, 1, 1.0, 2.0, 0.5)(views, given._replace(done=done), given.x)
        assert torch.allclose(found - plain, 2 * share * full, atol=1e-5)


def test_entropy_of_an_even_and_of_a_certain_prediction() -> None:
    assert torch.allclose(entropy(torch.tensor([[0.0, 0.0, 0.0], [1e4, 0.0, 0.0]])), torch.tensor([3.0, 1.0]).log())


def test_rows_without_labels_take_the_place_of_the_batch() -> None:
    views, given = Views(mlp()), batch()
    spare = given.x.flip(0)
    found = vat(0.5, 0.02, 1, 1.0, 0.0, 0.0)(views, given._replace(spare=spare, spare_key=given.key), given.x)
    expected = virtual(views, Rows(spare, given.key, views.model(spare).detach()), 0.5, 0.02, 1).mean()
    assert torch.allclose(found, functional.cross_entropy(views.model(given.x), given.y) + expected)


def test_imsat_asks_for_certain_and_even_predictions() -> None:
    views, given = Views(mlp()), batch()
    found = imsat(lambda row: torch.full((len(row),), 0.5), 0.02, 1, 0.1, 4.0)(views, given, given.x)
    p = views.model(given.x).softmax(1)
    still = virtual(views, Rows(given.x, given.key, views.model(given.x).detach()), 0.5, 0.02, 1).mean()
    apart = -(p * p.log()).sum(1).mean() + 4 * (p.mean(0) * p.mean(0).log()).sum()
    assert torch.allclose(found, still + 0.1 * apart, atol=1e-6)


def test_vat_without_settings_lowers_the_error_of_a_model_with_few_labels() -> None:
    """5 rows of each digit with labels, 1,000 without."""
    data = digits(1797)
    assert data.labels is not None
    order = permutation(1797, 0, 0, 0)
    known, test = order[:1000], order[1000:]
    chosen = torch.cat([known[data.labels[known] == label][:5] for label in range(10)])
    few, spare = in_memory(data.rows(chosen), data.labels[chosen]), in_memory(data.rows(known))
    wrong = {}
    for spec in (VAT(weight=0), VAT()):
        model = mlp(width=128)
        list(train(model, spec, few, Training(epochs=20, batch=50, monitor=0), unlabelled=spare))
        wrong[spec.weight] = float((model(data.rows(test)).argmax(1) != data.labels[test]).float().mean())
    assert wrong[1.0] < wrong[0] - 0.02
