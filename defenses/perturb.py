"""How rows are moved against the model: fixed steps on a whole batch. Slopes reach the rows alone, never the weights."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from sparring.attacks import random
from sparring.attacks.norms import Ball, ball
from sparring.attacks.rows import per_row
from sparring.contract.threat import Norm
from sparring.defenses.data import Batch
from sparring.defenses.layers import Model
from sparring.defenses.recipe import Perturb
from sparring.defenses.views import Views

START, SOURCE = 21, 22  # streams of randomness
Aim = Callable[[Model, Batch], Tensor]
"""Labels (B,) or probabilities (B, K) that the prediction is driven away from, held constant."""
Start = Callable[[Ball, Batch], Tensor]


def around(norm: Norm, eps: float, batch: Batch, radius: Tensor | None = None) -> Ball:
    """The ball about each row of a batch inside the data's bounds; `radius` (B,) overrules `eps`."""
    size = torch.full((len(batch.x),), eps, dtype=torch.float64, device=batch.x.device) if radius is None else radius
    return ball(norm, batch.x, size, batch.bounds)


def slope(model: Model, aim: Tensor, x: Tensor) -> Tensor:
    """The gradient (B, …) of `visit`."""
    return visit(model, aim, x)[1]


def visit(model: Model, aim: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The logits (B, K) at x, and the gradient (B, …) with respect to x of the cross-entropy between `aim` and each row's prediction.

    The aim is labels (B,), or probabilities (B, K); with the clean prediction for one the gradient is that of KL(p || p'), whose
    other part is constant. With respect to the logits it is p' - aim, which needs no graph.
    """
    x = x.detach().requires_grad_()
    logits = model(x)
    off = logits.detach().softmax(1)
    if aim.dim() == 1:
        off.scatter_add_(1, aim[:, None], off.new_full((len(off), 1), -1.0))
    else:
        off.sub_(aim)
    (grad,) = torch.autograd.grad(logits, x, off)
    return logits.detach(), grad


def labels(model: Model, batch: Batch) -> Tensor:
    """The labels."""
    return batch.y


def prediction(model: Model, batch: Batch) -> Tensor:
    """The prediction for the rows as they are."""
    with torch.no_grad():
        return model(batch.x).softmax(1)


def predicted(model: Model, batch: Batch) -> Tensor:
    """The class predicted for the rows as they are."""
    with torch.no_grad():
        return model(batch.x).argmax(1)


def anywhere(area: Ball, batch: Batch) -> Tensor:
    """Begin at a point drawn uniformly from the ball."""
    return area.sample(random.fork(batch.key, START))


def centre(area: Ball, batch: Batch) -> Tensor:
    """Begin at the row itself."""
    return batch.x


def beside(near: float) -> Start:
    """Begin at Gaussian noise of this standard deviation from the row, in units of the data."""
    return lambda area, batch: area.project(batch.x + near * random.normals(random.fork(batch.key, START), tuple(batch.x.shape[1:])))


def one_step(norm: Norm, eps: float, aim: Aim = labels, surrogates: Sequence[nn.Module] = ()) -> Perturb:
    """FGSM and FGM: to the end of the ball along the gradient. Goodfellow et al. 2014, Miyato et al. 2016.

    The gradient is that of one model for the whole batch: the one that learns, or one of `surrogates` (in evaluation mode), each as
    likely (Tramèr et al. 2017, 1705.07204, section 4).
    """

    def perturb(views: Views, batch: Batch) -> Tensor:
        at = source(batch, 1 + len(surrogates)) if surrogates else 0
        model = partial(views.other, surrogates[at - 1]) if at else views.still
        return around(norm, eps, batch).extreme(slope(model, aim(model, batch), batch.x))

    return perturb


def source(batch: Batch, count: int) -> int:
    """A number below `count`, drawn evenly from the key of the batch's first row."""
    return int(float(random.uniforms(random.fork(batch.key[:1], SOURCE), ())) * count)


def pgd(
    norm: Norm,
    eps: float,
    alpha: float,
    steps: int,
    start: Start = anywhere,
    aim: Aim = labels,
    *,
    folded: bool = False,
    ramp: float = 0.0,
) -> Perturb:
    """Projected steepest ascent (Madry et al. 2017); with one longer step it is that of Fast-AT (Wong et al. 2020, algorithm 3).

    Over the share `ramp` of the training ball and steps grow from 0 to their full size.
    """

    def perturb(views: Views, batch: Batch) -> Tensor:
        grown = min(1.0, batch.done / ramp) if ramp else 1.0
        area, model = around(norm, grown * eps, batch), views.folded() if folded else views.still
        return ascend(model, aim(model, batch), area, start(area, batch), grown * alpha, steps)

    return perturb


def ascend(model: Model, aim: Tensor, area: Ball, x: Tensor, alpha: float, steps: int) -> Tensor:
    """`steps` times x <- P(x + alpha steepest slope)."""
    for _ in range(steps):
        grad = slope(model, aim, x)
        x = area.project(x.detach() + alpha * area.steepest(grad, x))
    return x.detach()


def friendly(norm: Norm, eps: float, alpha: float, steps: int, further: int) -> Perturb:
    """PGD in which a row that is misclassified moves `further` steps more, and then no longer (Zhang et al. 2020, algorithm 1)."""

    def perturb(views: Views, batch: Batch) -> Tensor:
        area = around(norm, eps, batch)
        x, left = anywhere(area, batch), torch.full_like(batch.y, further)
        for _ in range(steps):
            logits, grad = visit(views.still, batch.y, x)
            wrong = logits.argmax(1) != batch.y
            moves = per_row(~wrong | (left > 0), x)
            left -= wrong.to(left.dtype)
            x = torch.where(moves, area.project(x + alpha * area.steepest(grad, x)), x)
        return x

    return perturb


def scaled(x: Tensor, size: Tensor | float) -> Tensor:
    """Rows (B, …) of l2 length `size`, a number or (B,); zero rows stay zero, and tiny ones do not underflow.

    Divided by the largest entry first (Miyato et al. 2017, in the code), each row by itself.
    """
    peak = per_row(x.flatten(1).abs().amax(1), x)
    whole = x / peak.clamp_min(1e-30)
    length = per_row(whole.flatten(1).norm(dim=1), x)
    sizes = per_row(size.to(x.dtype), x) if isinstance(size, Tensor) else size
    return whole * (sizes / length.clamp_min(1e-12))
