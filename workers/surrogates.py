"""What an attacker learns before the attack, kept beside the shards, opened by whoever attacks: surrogates, universal perturbations.

What is learnt is a *lesson*: attacks that want the same one share it, and another attempt finds it done.
"""

import copy
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sparring.attacks.access import GradientAccess, Target
from sparring.attacks.norms import Norm, called
from sparring.attacks.search import search_copy
from sparring.attacks.transfer import Mean, substitute
from sparring.contract.attacks import UAP, AttackSpec, Substitute, Transfer
from sparring.contract.attacks.gray import Architecture
from sparring.contract.jobs import Craft, Evaluate
from sparring.contract.quantity import value
from sparring.contract.report import Score, SurrogateResult, UniversalResult
from sparring.contract.runner import Order, Other
from sparring.contract.threat import Threat
from sparring.defenses.fit import fit
from sparring.workers.architectures import Standardised, afresh, architecture, is_picture
from sparring.workers.bench import Bench, Facts, feasible, first_pass
from sparring.workers.datasets import Dataset, open_dataset, unpack
from sparring.workers.errors import Refused
from sparring.workers.models import load_model
from sparring.workers.prepare import Prepared
from sparring.workers.universal import Universal, fitted

_RATE = 1e-3
_COMPARED = 2048
"""Evaluated rows on which a surrogate is compared with the target."""


class Surrogate(NamedTuple):
    """A model beside the target, and how it comes to be."""

    name: str
    architecture: Architecture | None
    """None: an uploaded model."""
    epochs: int = 0
    rows: int = 0
    asks: Substitute | None = None
    """It learns from the target's answers, and not from labels."""

    @property
    def passes(self) -> int:
        """Over its rows, in all."""
        return self.epochs * (self.asks.rounds if self.asks else 1)

    @property
    def file(self) -> str:
        """Where it is kept."""
        asks = self.asks.model_dump(exclude={"attack"}) if self.asks else None
        digest = hashlib.sha256(json.dumps([*self[:4], asks]).encode()).hexdigest()
        return f"surrogate-{digest[:20]}.safetensors"


Lesson = Surrogate | Universal
Studied = SurrogateResult | UniversalResult
"""What came of a lesson."""


def lessons(attack: AttackSpec, threat: Threat, row: tuple[int, ...]) -> tuple[Lesson, ...]:
    """What is to be learnt for an attack under a threat, for data whose rows have the shape `row`."""
    if isinstance(attack, UAP):
        return (Universal(attack, threat.norm, threat.radius),)
    return surrogates(attack, row) if isinstance(attack, (Transfer, Substitute)) else ()


def surrogates(attack: Transfer | Substitute, row: tuple[int, ...]) -> tuple[Surrogate, ...]:
    """The surrogates of an attack, for data whose rows have the shape `row`."""
    if isinstance(attack, Substitute):
        return (Surrogate("substitute", attack.architecture, attack.epochs, attack.seeds, attack),)
    trained: tuple[Architecture, ...] = ("mlp", "cnn") if is_picture(row) else ("mlp",)
    if attack.architectures is not None or attack.models:
        trained = attack.architectures or ()
    own = (Surrogate(name, name, attack.epochs, attack.limit) for name in dict.fromkeys(trained))
    return (*own, *(Surrogate(ref, None) for ref in dict.fromkeys(attack.models)))


def curriculum(job: Evaluate | Craft, facts: Facts) -> tuple[Lesson, ...]:
    """Every lesson of a job, each once."""
    learners = ((attack, threat) for threat in job.threats for attack in feasible(job, threat, facts))
    return tuple({lesson.file: lesson for attack, threat in learners for lesson in lessons(attack, threat, facts.shape[1:])}.values())


def holdings(order: Order, data: Dataset) -> tuple[Dataset, int, int]:
    """The attacker's own rows: a dataset, and the first and the end of those of its rows that are not evaluated.

    Raises:
        Refused: the training rows have another shape than those evaluated, or cannot be read.
    """
    given = order.others.get("training")
    if given is None:
        return data, min(order.job.rows or len(data), len(data)), len(data)
    assert given.info.format == "npz"
    own = open_dataset(unpack(Path(given.path), Path(order.cache), given.info.sha256), given.info.spec)
    if own.row_shape != data.row_shape:
        raise Refused(
            "bad_data",
            f"rows of the training data have shape {list(own.row_shape)}, those evaluated {list(data.row_shape)}",
            hint="Give training data of the same kind and layout.",
            detail="shape_mismatch",
        )
    return own, 0, len(own)


def study(order: Order, bench: Bench, facts: Facts, lesson: Lesson, folder: Path, digest: str, tell: Callable[[int], None]) -> None:
    """Learn a lesson, and keep it. `tell(n)`: n more passes are done.

    Raises:
        Refused: it cannot be learnt from these data, or does not fit them.
    """
    torch.manual_seed(_seed(order, lesson))
    if isinstance(lesson, Universal):
        x, labels = _own(order, bench, lesson.spec.limit)
        v, found = fitted(lesson, bench, x, labels, _seed(order, lesson), tell)
        _keep(folder / lesson.file, {"v": v}, found, digest)
    else:
        module, result = _trained(order, bench, facts, lesson, tell)
        _keep(folder / lesson.file, module.state_dict() if lesson.architecture else {}, result, digest)


def _own(order: Order, bench: Bench, most: int, *, labelled: bool = False) -> tuple[Tensor, Tensor | None]:
    """Rows of the attacker's own (N, …), drawn from the state of torch's generator on, and their labels (N,) if they have any."""
    data, first, end = holdings(order, bench.data)
    drawn = torch.randperm(end - first)[:most].sort().values + first
    if len(drawn) < 2 or (labelled and data.labels is None):
        hint = "Give training data with labels, and at least two rows."
        raise Refused("bad_data", "the attacker's rows are fewer than two, or have no labels to learn from", hint=hint, detail="training")
    labels = None if data.labels is None else torch.from_numpy(data.labels[drawn.numpy()]).to(bench.device)
    return data.rows(drawn).to(bench.device), labels


def _trained(order: Order, bench: Bench, facts: Facts, lesson: Surrogate, tell: Callable[[int], None]) -> tuple[nn.Module, SurrogateResult]:
    """The surrogate of a lesson, compared with the target on evaluated rows."""
    queries, used, classes = 0, 0, facts.classes
    if lesson.architecture is None:
        module: nn.Module = uploaded(order.others[lesson.name], bench.data, bench.device, classes)
    else:
        x, y = _own(order, bench, lesson.rows, labelled=lesson.asks is None)
        used = len(x)
        if lesson.asks is None:
            assert y is not None
            module = _fit(_fresh(order, bench, lesson, x, classes), x, y, lesson.epochs, tell)
        else:
            module, queries = _questioned(order, bench, lesson, lesson.asks, x, classes, tell)
    evaluated = bench.rows(torch.arange(min(facts.rows, _COMPARED)))
    said, own = bench.target.labels(evaluated), _target(bench, module).labels(evaluated)
    labels = bench.data.labels
    right = None if labels is None else int((own.cpu() == torch.from_numpy(labels[: len(own)].copy())).sum())
    return module, SurrogateResult(
        name=lesson.name,
        rows=used,
        queries=queries,
        accuracy=None if right is None else Score(count=right, total=len(own)),
        agreement=Score(count=int((own == said).sum()), total=len(own)),
    )


def recall(folder: Path, lesson: Lesson, digest: str) -> Studied | None:
    """What is known of a lesson that is learnt already; None where it is not, or belongs to another plan."""
    try:
        with safe_open(folder / lesson.file, framework="pt") as file:
            told = file.metadata()
    except (OSError, SafetensorError):
        return None
    if told.get("plan") != digest:
        return None
    kind = UniversalResult if isinstance(lesson, Universal) else SurrogateResult
    return kind.model_validate_json(told["result"])


def learnt(order: Order, facts: Facts, digest: str) -> dict[str, Studied]:
    """What came of each lesson of a job, when all are learnt, by its file."""
    folder = Path(order.out) / "shards"
    found = ((lesson.file, recall(folder, lesson, digest)) for lesson in curriculum(order.job, facts))
    return {name: result for name, result in found if result is not None}


class School:
    """What was learnt for a job, opened when it is needed."""

    def __init__(self, order: Order, bench: Bench, classes: int, folder: Path) -> None:
        """The lessons lie in `folder`."""
        self._order, self._bench, self._classes, self._folder = order, bench, classes, folder
        self._open: dict[str, Target] = {}

    def surrogates(self, spec: Transfer | Substitute) -> Sequence[GradientAccess]:
        """Access to the surrogates of an attack, one or several."""
        members = [self._target(lesson) for lesson in surrogates(spec, self._bench.data.row_shape)]
        if not isinstance(spec, Transfer) or not spec.ensemble:
            return members
        return [_target(self._bench, Mean([member.judge for member in members]))]

    def universal(self, spec: UAP, norm: Norm, eps: float) -> Tensor:
        """The perturbation (…) of a threat."""
        with safe_open(self._folder / Universal(spec, called(norm), eps).file, framework="pt") as file:
            v: Tensor = file.get_tensor("v").to(self._bench.device)
        return v

    def _target(self, lesson: Surrogate) -> Target:
        if lesson.file not in self._open:
            self._open[lesson.file] = _target(self._bench, self._module(lesson))
        return self._open[lesson.file]

    def _module(self, lesson: Surrogate) -> nn.Module:
        if lesson.architecture is None:
            return uploaded(self._order.others[lesson.name], self._bench.data, self._bench.device, self._classes)
        like = self._bench.rows(torch.arange(2) % len(self._bench.data))
        module = _fresh(self._order, self._bench, lesson, like, self._classes)
        with safe_open(self._folder / lesson.file, framework="pt") as file:
            module.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118  # not a dict
        return module.eval().to(self._bench.device)


def _seed(order: Order, lesson: Lesson) -> int:
    return (order.job.seed * 1_000_003 + zlib.crc32(lesson.file.encode())) % 2**63


def _target(bench: Bench, module: nn.Module) -> Target:
    search, _ = search_copy(module)
    return Target(module.eval(), search, bench.target.tile)


def uploaded(given: Other, data: Dataset, device: torch.device, classes: int) -> nn.Module:
    """An uploaded model as a surrogate of one with so many classes: rows of the data (B, …) -> logits (B, K), its weights held.

    Raises:
        Refused: it has no slopes to follow, reads other rows, or tells other classes apart.
    """
    info = given.info
    assert info.format != "npz"
    if info.spec.endpoint:
        hint = "Give a model whose weights are uploaded."
        raise Refused(
            "unsupported", f"the surrogate {info.name} is an endpoint, which has no gradient", hint=hint, detail="score_access_only"
        )
    with _named(info.name):
        loaded = load_model(Path(given.path), info.format, info.spec)
    if loaded.access != "gradient" or loaded.graph is not None:
        hint = "Give the surrogate as .pt2, safetensors or state dict."
        raise Refused("unsupported", f"the surrogate {info.name} has no gradient to follow here", hint=hint, detail="score_access_only")
    with _named(info.name), torch.no_grad():
        module = Prepared(loaded, info.spec, data.row_shape, data.spec.layout).eval().to(device).requires_grad_(False)
        width = first_pass(module, data.rows(torch.arange(2) % len(data)).to(device)).shape[1]
    if width != classes:
        hint = "A surrogate must tell the same classes apart."
        raise Refused("bad_model", f"the surrogate {info.name} has {width} classes, the target {classes}", hint=hint, detail="classes")
    return module


@contextmanager
def _named(name: str) -> Iterator[None]:
    """What is refused meanwhile is said of the surrogate of this name."""
    try:
        yield
    except Refused as refused:
        why = refused.reason
        raise Refused(why.code, f"the surrogate {name}: {why.message}", hint=why.hint, detail=why.detail) from refused


def _fresh(order: Order, bench: Bench, lesson: Surrogate, x: Tensor, classes: int) -> nn.Module:
    """The untrained model of a lesson, for rows x (B, …)."""
    if lesson.architecture == "same":
        module: nn.Module = copy.deepcopy(bench.model)
        afresh(module)
        return module.requires_grad_(True)
    assert lesson.architecture is not None
    layout = bench.data.spec.layout
    shape = tuple(x.movedim(-1, 1).shape[1:] if layout == "NHWC" and x.dim() == 4 else x.shape[1:])
    return Standardised(architecture(lesson.architecture, shape, classes), x, layout).to(bench.device)


def _fit(module: nn.Module, x: Tensor, y: Tensor, epochs: int, tell: Callable[[int], None]) -> nn.Module:
    """Plain training, from the state of torch's own generator on."""
    for _ in fit(module, x, y, epochs=epochs, rate=_RATE, seed=int(torch.randint(2**31, ()))):
        tell(1)
    return module.requires_grad_(False)


def _questioned(
    order: Order, bench: Bench, lesson: Surrogate, spec: Substitute, x: Tensor, classes: int, tell: Callable[[int], None]
) -> tuple[nn.Module, int]:
    """A substitute, and the queries it took."""
    made: list[nn.Module] = []

    def train(rows: Tensor, answers: Tensor) -> Target:
        module = _fit(_fresh(order, bench, lesson, rows, classes), rows, answers, spec.epochs, tell)
        made.append(module)
        return _target(bench, module)

    jacobian = spec.augmentation == "jacobian"
    _, asked = substitute(bench.target.labels, x, spec.rounds, value(spec.step), bench.data.bounds, train, jacobian=jacobian)
    return made[-1], len(asked)


def _keep(path: Path, state: Mapping[str, Tensor], result: Studied, digest: str) -> None:
    """Write it so that it is whole or absent."""
    temporary = path.with_suffix(".tmp")
    whole = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(whole, temporary, metadata={"plan": digest, "result": result.model_dump_json()})
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
