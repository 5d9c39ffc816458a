"""Small models with known answers, and targets that watch what is asked of them."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sparring.attacks import catalogue, random
from sparring.attacks import problem as problems
from sparring.attacks.access import Rank, Target
from sparring.attacks.norms import Bounds, Norm, ball, called
from sparring.attacks.problem import Goal, Outcome, Problem
from sparring.attacks.search import search_copy
from sparring.attacks.uap import fit
from sparring.contract.attacks import (
    APGD,
    ATTACKS,
    CW,
    DDN,
    EAD,
    FAB,
    FGM,
    FMN,
    JSMA,
    NES,
    PGD,
    SPSA,
    UAP,
    AttackSpec,
    Boundary,
    CWLinf,
    HopSkipJump,
    RayS,
    SimBA,
    SparseRS,
    Square,
    Substitute,
    Transfer,
)

LIGHT: dict[str, AttackSpec] = {
    "apgd": APGD(steps=24),
    "cw": CW(steps=30, searches=4, weight=1.0),
    "ddn": DDN(steps=60),
    "fmn": FMN(steps=60),
    "cwlinf": CWLinf(steps=8, rounds=12, weight=0.1),
    "jsma": JSMA(steps=12, targets=3, saliency="logits"),
    "ead": EAD(steps=20, searches=3, weight=1.0),
    "fab": FAB(steps=20),
    "square": Square(queries=100),
    "sparse_rs": SparseRS(queries=100),
    "transfer": Transfer(),
    "substitute": Substitute(attack=FGM()),
    "uap": UAP(steps=10),
    "nes": NES(queries=120, pairs=5),
    "spsa": SPSA(queries=150, pairs=5),
    "simba": SimBA(queries=80),
    "boundary": Boundary(queries=100),
    "hopskipjump": HopSkipJump(queries=200, probes=20),
    "rays": RayS(queries=200),
}
"""Fewer steps where the defaults take long."""
AIMED: tuple[AttackSpec, ...] = (
    APGD(steps=20, loss="dlr", targets=3),
    FAB(steps=20, targets=3),
    PGD(steps=10, samples=2),
    PGD(steps=10, restarts=3),
    SimBA(queries=60, basis="dct"),
)
EVERY = [
    (spec, norm)
    for spec in (*(LIGHT.get(kind().kind, kind()) for kind in ATTACKS), *AIMED)
    for norm in spec.norms
    if norm in getattr(spec, "attack", spec).norms
]
"""Each attack of the contract, and some of its other forms, with each norm it is defined for."""
IDS = [
    f"{spec.kind}{'-again' if spec in AIMED and not getattr(spec, 'targets', 0) else '-aimed' if spec in AIMED else ''}-{norm}"
    for spec, norm in EVERY
]


def sharp(spec: AttackSpec, eps: float) -> AttackSpec:
    """Steps that come within 0.1 % of the best point of a ball on an affine model: 1 - cos of the angle left is 0.8^80 / 2."""
    return PGD(steps=40, alpha=eps / 4) if isinstance(spec, PGD) else spec


def target(model: nn.Module, tile: int = 32) -> Target:
    model.eval()
    return Target(model, search_copy(model)[0], tile)


def problem(x: Tensor, labels: Tensor, norm: str, eps: float | Tensor, bounds: Bounds = None, *, stop: bool = True, targeted: bool = False,
            seed: int = 0, first: int = 0) -> Problem:  # fmt: skip
    radius = torch.as_tensor(eps, dtype=torch.float64).expand(len(x))
    rows = torch.arange(first, first + len(x))
    return problems.problem(Goal(labels, targeted), ball(norm, x, radius, bounds), random.keys(seed, rows), stop=stop)


class Affine(NamedTuple):
    """Two classes, logits (0, w.x): the distance to the boundary is |w.x| over the dual norm of w, and one entry in l0."""

    model: nn.Module
    x: Tensor
    labels: Tensor
    distance: dict[str, Tensor]


def affine(rows: int = 24, size: int = 12) -> Affine:
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(size, generator=generator)
    x = torch.randn(rows, size, generator=generator)
    model = nn.Linear(size, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.stack((torch.zeros(size), w)))
    score = x.double() @ w.double()
    dual = {"linf": w.double().abs().sum(), "l2": w.double().norm(), "l1": w.double().abs().amax()}
    distance = {norm: score.abs() / size for norm, size in dual.items()}
    return Affine(model, x, (score > 0).long(), distance | {"l0": torch.ones_like(score)})


def cnn(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 5),
    )


def pictures(rows: int = 32, seed: int = 1) -> Tensor:
    """Rows (B, 1, 8, 8) in [0, 1], corners of the box included."""
    x = torch.rand(rows, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return x.where((x > 0.1) & (x < 0.9), x.round())


class Taught(NamedTuple):
    """What was learnt beforehand: the surrogate is the model itself, which is the best there can be; v is fitted on grey rows."""

    own: Target
    row: tuple[int, ...] = ()
    bounds: Bounds = None

    def surrogates(self, spec: Transfer | Substitute) -> list[Target]:
        return [self.own]

    def universal(self, spec: UAP, norm: Norm, eps: float) -> Tensor:
        grey = torch.linspace(0, 1, 17).reshape(-1, *(1 for _ in self.row)).expand(-1, *self.row)
        return fit(spec, called(norm), eps, self.own, grey, self.own.labels(grey), self.bounds, seed=0)


def attacked(spec: AttackSpec, eps: float, asked: "Target | Spy", problem: Problem) -> Outcome:
    """The attack as the catalogue runs it; what is learnt beforehand is learnt elsewhere than on the rows of the problem."""
    inner = asked.inner if isinstance(asked, Spy) else asked
    own = Target(inner.judge, inner.search, inner.tile)
    bounds = (problem.ball.least, problem.ball.most)
    return catalogue.run(spec, eps, asked, problem, Taught(own, tuple(problem.x.shape[1:]), bounds))


class Spy:
    """Counts what is asked, and refuses what was not declared."""

    def __init__(self, inner: Target, access: str) -> None:
        self.inner, self.access, self.asked = inner, access, 0

    @property
    def tile(self) -> int:
        return self.inner.tile

    def tell(self, share: float) -> None:
        assert 0 <= share <= 1

    def labels(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        return self.inner.labels(x)

    def reached(self, goal: Goal, x: Tensor) -> Tensor:
        self.asked += len(x)
        return self.inner.reached(goal, x)

    def logits(self, x: Tensor) -> Tensor:
        assert self.access in ("score", "gradient"), "asked for scores without the right to them"
        self.asked += len(x)
        return self.inner.logits(x)

    def slope(self, loss: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        assert self.access == "gradient", "asked for a gradient without the right to it"
        self.asked += len(x)
        return self.inner.slope(loss, x)

    def slope_of_least(self, losses: Callable[[Tensor], Tensor], rank: Rank, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        assert self.access == "gradient", "asked for a gradient without the right to it"
        self.asked += len(x)
        return self.inner.slope_of_least(losses, rank, x)
