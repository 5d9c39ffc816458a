"""DI-FGSM: what it looks at, what it is told, and that the gradient is that of the transform."""

import pytest
import torch
from attacks.cases import Spy, cnn, pictures, problem, target
from torch import Tensor, nn
from torch.nn import functional

from sparring.attacks import catalogue, random
from sparring.attacks.diverse import diverse
from sparring.attacks.losses import ce
from sparring.attacks.parts import backprop
from sparring.contract.attacks import DIFGSM, MIFGSM


def shrunk(x: Tensor, key: Tensor, shrink: float) -> Tensor:
    """The transform by torch's own sampler."""
    draws = random.uniforms(random.fork(key, 0), (3,))
    scale = shrink + (1 - shrink) * draws[:, 0]
    shift = (1 - scale)[:, None] * (2 * draws[:, 1:] - 1)
    theta = torch.zeros(len(x), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / scale
    theta[:, :, 2] = -shift.flip(1) / scale[:, None]
    return functional.grid_sample(x, functional.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)


def test_the_gradient_is_that_through_the_transform_and_loss_and_margin_are_those_at_x() -> None:
    model, x = cnn(), pictures()
    asked = problem(x, target(model).labels(x), "linf", 0.1)
    point = diverse(ce, 1.0, 0.7)(target(model, 64), asked, x, slope=True)
    plain = backprop(ce)(target(model, 64), asked, x, slope=True)
    rows = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(ce(model(shrunk(rows, asked.key, 0.7)), asked.goal).sum(), rows)
    assert torch.allclose(point.grad, wanted, atol=1e-4)
    assert torch.allclose(point.loss, plain.loss, atol=1e-5)
    assert torch.allclose(point.margin, plain.margin, atol=1e-5)
    assert torch.as_tensor(point.looks).tolist() == [2] * len(x)


def test_so_many_rows_as_said_are_transformed_and_only_they_cost_two_queries() -> None:
    model, x = cnn(), pictures(1).expand(1000, -1, -1, -1).contiguous()
    spy = Spy(target(model, 1000), "gradient")
    asked = problem(x, torch.zeros(1000, dtype=torch.int64), "linf", 0.1)
    point = diverse(ce, 0.3, 0.7)(spy, asked, x, slope=True)
    plain = backprop(ce)(target(model, 1000), asked, x, slope=True)
    turned = (point.grad != plain.grad).flatten(1).any(1)
    assert torch.equal(torch.as_tensor(point.looks), 1 + turned.long())
    assert spy.asked == 1000 + int(turned.sum())
    assert 250 < int(turned.sum()) < 350


def test_each_step_looks_through_another_transform() -> None:
    """On an affine model the slope at x is always the same; what a step sees through transforms is not."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    x = pictures(4)
    labels = target(model).labels(x)
    seen: list[Tensor] = []

    class Watching(Spy):
        def slope(self, loss, rows):
            seen.append(rows[0] - x[0])
            return super().slope(loss, rows)

    asked = problem(x, labels, "linf", 1e-4, stop=False)
    catalogue.run(DIFGSM(steps=5, diversity=1.0), 1e-4, Watching(target(model), "gradient"), asked)
    gaps = [(a - b).abs().max() for at, a in enumerate(seen) for b in seen[:at]]
    assert len(seen) == 6  # the last look is as all the others
    assert min(gaps) > 0.01


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 2, 3, 4)])
def test_rows_that_are_no_pictures_are_attacked_as_by_mifgsm(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), 3))
    x = torch.rand(6, *shape)
    asked = problem(x, target(model).labels(x), "linf", 0.1, stop=False)
    diverse_, plain = (catalogue.run(spec, 0.1, target(model), asked) for spec in (DIFGSM(steps=4), MIFGSM(steps=4)))
    assert torch.equal(diverse_.x, plain.x)
    assert torch.equal(diverse_.queries, plain.queries)


def test_at_full_size_nothing_is_moved() -> None:
    model, x = cnn(), pictures()
    asked = problem(x, target(model).labels(x), "linf", 0.1)
    point = diverse(ce, 1.0, 1.0)(target(model, 64), asked, x, slope=True)
    plain = backprop(ce)(target(model, 64), asked, x, slope=True)
    assert torch.allclose(point.grad, plain.grad, atol=1e-6)
