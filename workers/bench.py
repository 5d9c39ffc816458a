"""A model and a dataset made ready, in one process: what preflight measures on and shards are attacked on."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from sparring.attacks.access import Target
from sparring.attacks.bounds import Bounded
from sparring.attacks.catalogue import School
from sparring.attacks.operators import Unbounded
from sparring.attacks.search import Halved, search_copy
from sparring.contract import jobs
from sparring.contract.attacks import UAP, Access, AttackSpec, Substitute, Transfer
from sparring.contract.defenses import SmoothingCertificate
from sparring.contract.jobs import Craft, Evaluate
from sparring.contract.report import Finding
from sparring.contract.runner import Order
from sparring.contract.specs import DataSpec
from sparring.contract.threat import Threat
from sparring.workers import smoothing
from sparring.workers.asking import Asked, Enquire, Remote, load_endpoint
from sparring.workers.datasets import Dataset, open_dataset, unpack
from sparring.workers.errors import Refused
from sparring.workers.models import Loaded, check_classes, load_model
from sparring.workers.past import Past
from sparring.workers.prepare import Prepared, Voting
from sparring.workers.pt2.shapes import BUDGET, BUDGET_ROWS

_FAST = "slopes in bfloat16, but not where the smallest change is looked for"


class Facts(NamedTuple):
    """What preflight found out; every process of the runner works from the same facts."""

    rows: int
    """Rows to evaluate, from the first."""
    classes: int
    shape: tuple[int, ...]
    """Of the dataset, rows first."""
    dtype: str
    labelled: bool
    spec: DataSpec
    """With its defaults filled in."""
    parameters: int
    probabilities: bool
    independent: bool
    search: tuple[str, ...]
    device: str
    findings: tuple[Finding, ...]
    judge: str = ""
    """What decides, in words."""
    access: Access = "gradient"
    """What may be asked of the model: attacks that need more are left out."""
    training: int = 0
    """Rows that the attacker has, to train models of their own: none of them is evaluated."""
    granule: int = 0
    """A row's results were bit-equal in passes of any multiple of so many rows; 0 where they were not, or this is not known."""
    draws: bool = False
    """The model draws at random: the majority of several passes is its word."""


@dataclass
class Bench:
    """The pieces, on their device."""

    data: Dataset
    loaded: Loaded
    model: Prepared
    target: Target
    search: tuple[str, ...]
    device: torch.device
    facts: Facts | None = None
    """What preflight found; None before it has."""
    school: School | None = None
    """What attacks have learnt beforehand."""
    seal: int = 0
    """Fingerprint of the model as it was before the first attack."""

    def fingerprint(self) -> int:
        """Of every number in the model and in the copy that is searched."""
        total = 0
        for module in (self.target.judge, self.target.search):
            for tensor in (*module.parameters(), *module.buffers()):
                total = zlib.crc32(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data, total)
        return total

    past: Past | None = None
    """What earlier evaluations kept, if any is replayed."""

    def rows(self, index: Tensor) -> Tensor:
        """Rows of the data (B, …) float32, on the device."""
        return self.data.rows(index).to(self.device)

    def again(self, x: Tensor, time: int = 0) -> Tensor:
        """The judge's scores (B, K) of x (B, …), asked afresh: an endpoint's are not from memory, at least the first time under `time`."""
        judge = self.loaded.module
        if not isinstance(judge, Asked):
            return self.target.verdict(x)
        with judge.afresh(time):
            return self.target.verdict(x)

    def bounded(self, x: Tensor) -> Bounded:
        """Bounds of the scores on rows such as x (B, …). Raises Unbounded where there are none."""
        if self.loaded.access != "gradient":
            raise Unbounded("the model is known by its answers alone")
        return Bounded(self.target.search, x)


def pick(device: str) -> torch.device:
    """`cpu` or `cuda:N`, with arithmetic in full fp32 and deterministic."""
    if device.startswith("cuda"):
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
    return torch.device(device)


def prepared(order: Order, loaded: Loaded, data: Dataset) -> Prepared:
    """The model with its declared first layer."""
    return Prepared(loaded, order.model.spec, data.row_shape, data.spec.layout)


def open_bench(order: Order, device: torch.device, tile: int, facts: Facts | None, enquire: Enquire | None = None) -> Bench:
    """Load model and data. Without facts this is preflight's own first look. An endpoint is asked through `enquire`.

    Raises:
        Refused: one of them cannot be used.
    """
    data = open_dataset(unpack(Path(order.data_path), Path(order.cache), order.data.sha256), order.data.spec)
    spec = order.model.spec
    loaded = load_endpoint(spec, enquire) if spec.endpoint else load_model(Path(order.model_path), order.model.format, spec)
    if loaded.graph is not None:
        loaded = _settled(order, loaded, data, tile)
    if facts and loaded.access != facts.access:
        raise RuntimeError("a model that had a gradient in one process has none in another")
    probabilities, draws = bool(facts and facts.probabilities), bool(facts and facts.draws)
    model, target, done = aim(order, loaded, data, device, tile, probabilities=probabilities, draws=draws)
    target.granule = (facts and facts.granule) or tile
    past = Past(order.earlier, data.row_shape) if order.earlier else None
    return Bench(data, loaded, model, target, done, device, facts, past=past)


def aim(
    order: Order, loaded: Loaded, data: Dataset, device: torch.device, tile: int, *, probabilities: bool, draws: bool
) -> tuple[Prepared, Target, tuple[str, ...]]:
    """The judge, the target to attack, and what was done to the copy that is searched, in words."""

    def made(module: torch.nn.Module) -> Prepared:
        model = prepared(order, loaded._replace(module=module), data).eval().to(device)
        model.probabilities = probabilities
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        return model

    model = made(loaded.module)
    if isinstance(loaded.search, Asked):
        return model, Remote(model, made(loaded.search), tile), ("no copy: the endpoint itself is asked",)
    if (smoothed := smoothing_of(order.job)) and loaded.access == "gradient":
        search, done = search_copy(model if loaded.search is None else made(loaded.search))
        told = f"slopes averaged over {smoothing.SLOPES} draws of the noise"
        judged, climbed = (each.eval().to(device) for each in (smoothing.judge(model, smoothed), smoothing.climber(search, smoothed)))
        return model, Target(judged, climbed, tile), (*done, told)
    judge = Voting(model).eval() if draws else model
    if loaded.access != "gradient":
        return model, Target(judge, model, tile), ("no copy: the judge itself is asked",)
    if loaded.search is None:
        search, done = search_copy(model)
    else:
        search, done = search_copy(made(loaded.search))
        done = ("converted to torch", *done)
    climber = None
    if order.job.kind == "evaluate" and order.job.precision == "fast":
        climber = Halved(search) if halves(device) else None
        done = (*done, _FAST if climber else "slopes in float32: this processor has no bfloat16 arithmetic")
    return model, Target(judge, search, tile, climber), done


def smoothing_of(job: Evaluate | Craft) -> SmoothingCertificate | None:
    """How the model of the job is smoothed before it is attacked; None where it is taken as it is."""
    certificate = job.certificate if job.kind == "evaluate" else None
    return certificate if isinstance(certificate, SmoothingCertificate) else None


def proves(job: Evaluate | Craft) -> bool:
    """Whether the job bounds the model's answers."""
    return job.kind == "evaluate" and (job.skip_proved or (job.certificate is not None and smoothing_of(job) is None))


def halves(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 faster than in float32: it has instructions for it."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _settled(order: Order, loaded: Loaded, data: Dataset, tile: int) -> Loaded:
    """How an ONNX graph is best run, tried on the first rows of the data."""
    from sparring.workers.onnx_judge import bounded  # here, because the packages are an extra
    from sparring.workers.onnx_search import settle

    x = data.rows(torch.arange(tile) % len(data))

    def fit(module: torch.nn.Module) -> Prepared:
        return prepared(order, loaded._replace(module=module), data).eval()

    with bounded(BUDGET * max(tile, BUDGET_ROWS) // BUDGET_ROWS), torch.no_grad():
        scores = first_pass(fit(loaded.module), x)
        check_classes(scores.shape[1], order.model.spec)
        return settle(loaded, x, scores, fit)


def feasible(job: Evaluate | Craft, threat: Threat, facts: Facts) -> tuple[AttackSpec, ...]:
    """The attacks of a job that the model and the attacker's rows allow, in their order."""
    return tuple(attack for attack in jobs.feasible(job, threat, facts.access) if facts.training or not learns(attack))


def learns(attack: AttackSpec) -> bool:
    """Whether the attack needs rows of the attacker's own to train on."""
    return isinstance(attack, (Substitute, UAP)) or (isinstance(attack, Transfer) and bool(attack.architectures or not attack.models))


def first_pass(forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Scores (B, K) of the first rows; what the model itself raises is told as a misfit of model and data.

    Raises:
        Refused: the model cannot run on such rows, or answers something other than finite (B, K) scores.
    """
    try:
        scores = forward(x)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        if out_of_memory(error):
            raise
        raise Refused(
            "bad_model",
            f"the model cannot run on rows of shape {list(x.shape[1:])}: {error}".splitlines()[0],
            hint="Check the shape and layout of model and data.",
            detail="shape_mismatch",
        ) from error
    if scores.dim() != 2 or len(scores) != len(x) or scores.shape[1] < 2:
        raise Refused(
            "bad_model",
            f"for {len(x)} rows the model answers shape {list(scores.shape)}; expected [{len(x)}, classes] with at least 2 classes",
            hint="Export the classifier so that it returns one row of logits per input.",
            detail="shape_mismatch",
        )
    if not bool(torch.isfinite(scores).all()):
        row = int(torch.nonzero(~torch.isfinite(scores).all(1))[0])
        raise Refused(
            "bad_model",
            f"the model answers NaN or infinity on clean row {row}",
            hint="Check the weights, and that mean, std and bounds are those of training.",
            detail="non_finite_output",
        )
    return scores


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    return (
        isinstance(error, (MemoryError, torch.OutOfMemoryError))
        or "can't allocate memory" in str(error)
        or "not enough memory" in str(error)
    )
