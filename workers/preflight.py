"""Before anything is attacked: refuse what cannot be measured, and warn of what would make the number wrong."""

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from sparring.attacks.access import Target
from sparring.attacks.losses import ce
from sparring.attacks.operators import Unbounded
from sparring.attacks.problem import Goal
from sparring.contract.attacks import ACCESSES
from sparring.contract.jobs import Craft, Evaluate
from sparring.contract.quantity import value
from sparring.contract.report import Finding
from sparring.contract.runner import Order
from sparring.workers import corruptions, datasets
from sparring.workers.asking import Enquire
from sparring.workers.bench import Bench, Facts, aim, feasible, first_pass, learns, open_bench, proves, smoothing_of
from sparring.workers.errors import Refused
from sparring.workers.prepare import PASSES, Prepared
from sparring.workers.smoothing import VOTES
from sparring.workers.surrogates import holdings

_SAMPLE = 256
_SMALLEST = 16
"""Rows of a pass, below which kernels were seen to change their ways."""
_FEW = 16
"""Rows that an endpoint is asked more than once: what it is asked may cost money."""
_STEADY = 1e-4
"""Logits that move more than this between two passes are random (AutoAttack's own criterion)."""


def preflight(order: Order, device: torch.device, tile: int, enquire: Enquire | None = None) -> tuple[Facts, Bench]:
    """Look before the leap. An endpoint is asked through `enquire`.

    Raises:
        Refused: shape, classes, labels, non-finite numbers, data outside their bounds.
    """
    bench = open_bench(order, device, tile, None, enquire)
    count = min(order.job.rows or len(bench.data), len(bench.data))
    x = bench.rows(torch.arange(min(count, _SAMPLE)))
    scores = first_pass(bench.target.verdict, x)
    datasets.check(bench.data, scores.shape[1], count)
    findings = [
        *beyond_bounds(order.job, bench.data),
        *_fewer(order.job, bench.data),
        *bench.loaded.findings,
        *corruptions.left_out(order.job, bench.data.row_shape, bench.data.spec),
    ]
    aimed = partial(aim, order, bench.loaded, bench.data, device, tile)
    with torch.no_grad():
        plain = bench.model(x) if smoothing_of(order.job) else scores
    if probabilities := _probabilities(order, bench, plain):
        findings.append(_PROBABILITIES if order.model.spec.endpoint is None else _ANSWERED)
        bench.model, bench.target, bench.search = aimed(probabilities=probabilities, draws=False)
        scores = bench.target.verdict(x)
    known = bench.data.labels
    labels = scores.argmax(1) if known is None else torch.from_numpy(known[: len(x)].copy()).to(device)
    blind = bench.loaded.access != "gradient"
    endpoint = order.model.spec.endpoint
    few = slice(_FEW if endpoint else None)
    own, first, end = holdings(order, bench.data)
    if own is not bench.data:
        datasets.check(own, scores.shape[1])
    if endpoint:
        independent, granule = _alone(bench, x, scores, endpoint.batch), 0
    else:
        independent, granule = _probed(bench.target, x, None if blind else labels)
    wavering = [*_steady(bench, x[few], scores[few])]
    findings += [*wavering, *([] if blind else _gradient(bench, x, labels)), *_ties(scores)]
    findings += [] if independent else [_INTERACT]
    findings += _unbounded(order.job, bench, x)
    findings += [] if known is None else _chance(order, bench, x, scores, labels)
    draws = bool(wavering) and endpoint is None  # to ask an endpoint eleven times over is for its owner to decide
    if draws:
        bench.model, bench.target, bench.search = aimed(probabilities=probabilities, draws=True)
        granule = 0
    bench.target.granule = granule or tile
    facts = _facts(
        order,
        bench,
        count,
        scores.shape[1],
        tuple(findings),
        independent=independent,
        granule=granule,
        draws=draws,
        training=end - first,
    )
    bench.facts = facts._replace(findings=(*findings, *_left_out(order.job, facts)))
    return bench.facts, bench


def _facts(
    order: Order,
    bench: Bench,
    rows: int,
    classes: int,
    findings: tuple[Finding, ...],
    *,
    independent: bool,
    granule: int,
    draws: bool,
    training: int,
) -> Facts:
    loaded, data, device = bench.loaded, bench.data, bench.device
    return Facts(
        rows=rows,
        classes=classes,
        shape=data.shape,
        dtype=data.dtype,
        labelled=data.labels is not None,
        spec=data.spec,
        parameters=loaded.parameters,
        probabilities=bench.model.probabilities,
        independent=independent,
        search=bench.search,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        findings=findings,
        judge=_judge(order, loaded.judge, draws=draws),
        access=loaded.access,
        training=training,
        granule=granule,
        draws=draws,
    )


def _judge(order: Order, judge: str, *, draws: bool) -> str:
    if smoothed := smoothing_of(order.job):
        return f"{judge}, smoothed: by the majority of {VOTES} draws of noise of standard deviation {value(smoothed.sigma):g}"
    return f"{judge}, by the majority of {PASSES} passes" if draws else judge


_PROBABILITIES = Finding(
    code="probabilities",
    message="The model answers probabilities, not logits; their logarithm is attacked.",
    hint="Export the model without its softmax: gradients through it can vanish.",
)
_ANSWERED = Finding(
    code="probabilities",
    message="The endpoint answers probabilities, not logits; their logarithm is attacked, that of 0 taken as that of 1e-38.",
    hint="Where they are rounded the attack goes by what is left: let the endpoint answer logits if it can.",
)
_INTERACT = Finding(
    code="rows_interact",
    message="A row's result on this model depends, at least in its last bits, on the rows that share its pass.",
    hint="Verdicts of rows close to the boundary may differ between runs of other shards or tiles.",
)


def beyond_bounds(job: Evaluate | Craft, data: datasets.Dataset) -> Iterator[Finding]:
    """An eps from which the whole box lies inside the ball is most often one in another unit."""
    if data.bounds is None:
        return
    low, high = data.bounds
    size, width = math.prod(data.row_shape), high - low
    diameter = {"linf": width, "l2": math.sqrt(size) * width, "l1": size * width, "l0": size}
    for threat in {(threat.norm, threat.radius): threat for threat in job.threats}.values():
        if threat.radius > diameter[threat.norm]:
            yield Finding(
                code="eps_exceeds_bounds",
                message=(
                    f"Under {threat.norm} {threat.eps} no legal input is out of reach: "
                    f"within the bounds [{low:g}, {high:g}] no two are farther apart than {diameter[threat.norm]:.4g}."
                ),
                hint=f"eps is in units of the data: if it was meant in steps of 255, write {threat.radius:g}/255."
                if threat.norm == "linf" and width <= 1
                else "eps is in units of the data: give a smaller one, or correct bounds and scale.",
                evidence={"norm": threat.norm, "eps": threat.radius, "largest_distance": diameter[threat.norm]},
            )


def _fewer(job: Evaluate | Craft, data: datasets.Dataset) -> Iterator[Finding]:
    if job.rows and job.rows > len(data):
        yield Finding(
            code="fewer_rows",
            message=f"The job asks for {job.rows:,} rows, and the data has {len(data):,}: all of them are taken.",
            hint="If the data should have more, look at what was uploaded.",
            evidence={"asked": job.rows, "rows": len(data)},
        )


def _left_out(job: Evaluate | Craft, facts: Facts) -> Iterator[Finding]:
    """What cannot be run for want of a gradient, of scores, or of rows to train on; Refused if that is all there is against some threat."""
    wanted = {attack.kind: attack for threat in job.threats for attack in job.against(threat)}
    given = "a gradient" if facts.access == "score" else "a gradient or scores"
    blind = sorted(kind for kind, attack in wanted.items() if ACCESSES.index(attack.access) > ACCESSES.index(facts.access))
    untrained = sorted(kind for kind, attack in wanted.items() if not facts.training and learns(attack))
    for at, threat in enumerate(job.threats):
        if not feasible(job, threat, facts):
            needed = [f"{given}, which the model does not give ({', '.join(blind)})"] if blind else []
            needed += [f"rows to train on, and every row is evaluated ({', '.join(untrained)})"] if untrained else []
            raise Refused(
                "unsupported",
                f"every attack on threat {at} ({threat.norm}) needs {', or '.join(needed)}",
                hint=(_NO_GRADIENT if blind else _NO_TRAINING),
                detail="score_access_only" if blind else "training_absent",
            )
    if blind:
        yield Finding(
            code="attacks_left_out",
            message=f"Attacks that need {given} were left out: {', '.join(blind)}.",
            hint="What is left is weaker: robust accuracy may be overstated.",
            evidence={"attacks": [*blind]},
        )
    if untrained:
        yield Finding(
            code="training_absent",
            message=f"Attacks that learn from rows of their own were left out: {', '.join(untrained)}. Every row of the data is evaluated.",
            hint=_NO_TRAINING,
            evidence={"attacks": [*untrained]},
        )


_NO_GRADIENT = "Ask for attacks that need only scores or decisions, or export the model as .pt2 with `sparring export`."
_NO_TRAINING = "Give the attacker rows of its own: a dataset as `training`, or fewer `rows` to evaluate than the data has."


def _unbounded(job: Evaluate | Craft, bench: Bench, x: Tensor) -> Iterator[Finding]:
    if not proves(job):
        return
    try:
        bench.bounded(x)
    except Unbounded as error:
        if job.kind == "evaluate" and job.certificate:
            hint = "Certify the smoothed model instead: --method smoothing, in norm l2."
            raise Refused("unsupported", f"nothing can be certified by bounds: {error}", hint=hint, detail="no_bound") from error
        yield Finding(
            code="no_bound",
            message=f"No row can be proved robust beforehand: {error}.",
            hint="Every row is attacked, as without skip_proved; the number is as good.",
        )


def _probabilities(order: Order, bench: Bench, scores: Tensor) -> bool:
    """Declared so; or all in [0, 1], rows summing to 1 as well as the model's precision can tell."""
    if (endpoint := order.model.spec.endpoint) and endpoint.gives != "scores":
        return endpoint.gives == "probabilities"
    slack = max(1e-3, scores.shape[1] * torch.finfo(bench.model.dtype).eps)
    return bool(((scores >= 0) & (scores <= 1)).all()) and bool(((scores.sum(1) - 1).abs() < slack).all())


def _ties(scores: Tensor) -> Iterator[Finding]:
    first, second = scores.topk(2, dim=1).values.unbind(1)
    tied = int((first == second).sum())
    if tied:
        yield Finding(
            code="tied_scores",
            message=f"On {tied} of {len(scores)} clean rows the two highest scores are exactly equal.",
            hint="A tie is never counted as a success of an attack: rounded scores make a model look more robust than it is.",
            evidence={"rows_tied": tied, "rows_looked_at": len(scores)},
        )


def _steady(bench: Bench, x: Tensor, scores: Tensor) -> Iterator[Finding]:
    moved = max(float((bench.again(x, time) - scores).abs().max()) for time in range(1, 4))
    if moved > _STEADY:
        yield Finding(
            code="not_deterministic",
            message="The model answers differently each time it is asked the same.",
            hint=f"A row counts as broken where most of {PASSES} passes say so. Ask for attacks that average over the randomness "
            "(samples=20), or robust accuracy is overstated; if it is dropout, export in evaluation mode.",
            evidence={"largest_change_of_a_logit": moved},
        )


def _gradient(bench: Bench, x: Tensor, labels: Tensor) -> Iterator[Finding]:
    part = x[: bench.target.tile]
    goal = Goal(labels[: len(part)])
    *_, slope = bench.target.slope(lambda logits: ce(logits, goal), part)
    absent = int((slope.flatten(1).abs().amax(1) == 0).sum())
    if absent:
        which = "does not reach the input at all" if absent == len(part) else f"is exactly zero on {absent} of {len(part)} rows"
        yield Finding(
            code="gradient_absent",
            message=f"The gradient of the loss {which}: gradient attacks cannot work there.",
            hint="Look for rounding, argmax, detach or quantisation in the model; only gradient-free attacks measure it.",
            evidence={"rows_without_gradient": absent, "rows_looked_at": len(part)},
        )


def _probed(target: Target, x: Tensor, labels: Tensor | None) -> tuple[bool, int]:
    """Whether rows are independent, and the granule: in what multiples of rows shorter passes may be made; 0 for none."""
    index = torch.arange(target.tile, device=x.device) % len(x)
    tile, known = x[index], None if labels is None else labels[index]
    whole = _seen(target, tile, known)
    independent = _independent(target, tile, known, whole)
    return independent, _granule(target, tile, known, whole) if independent else 0


def _independent(target: Target, x: Tensor, labels: Tensor | None, whole: list[Tensor]) -> bool:
    """Roll one tile and swap neighbours: a row's scores and gradient must not change by a bit. Without labels no gradient is asked for.

    `whole` is what was seen of the tile as it is.
    """
    identity = torch.arange(target.tile, device=x.device)
    for shift in (1, 3, target.tile // 2):
        order = identity.roll(shift)
        seen = _seen(target, x[order], None if labels is None else labels[order])
        if not all(torch.equal(part[torch.argsort(order)], every) for part, every in zip(seen, whole, strict=True)):
            return False
    alone = torch.cat((x[:1], torch.zeros_like(x[1:]) + x[-1:]))
    return all(torch.equal(ask(alone)[0], every[0]) for ask, every in zip((target.verdict, target.logits), whole, strict=False))


def _seen(target: Target, x: Tensor, labels: Tensor | None) -> list[Tensor]:
    """What judge and search copy say of a tile of rows or less; with labels the gradient, too."""
    if labels is None:
        return [target.verdict(x), target.logits(x)]
    goal = Goal(labels)
    logits, _, slope = target.slope(lambda z: ce(z, goal), x)
    return [target.verdict(x), target.logits(x), logits, slope]


def _granule(target: Target, x: Tensor, labels: Tensor | None, whole: list[Tensor]) -> int:
    """A quarter of a tile, if passes of one, two and three quarters tell of every row what a full one does, bit for bit; else 0.

    Libraries choose how to add up by the shape of a batch, not by what is in it: shapes that agree here agree everywhere.
    """
    granule = max(_SMALLEST, target.tile // 4)
    if target.tile % granule:
        return 0
    try:
        target.granule = granule
        for size in range(granule, target.tile, granule):
            part = _seen(target, x[:size], None if labels is None else labels[:size])
            if not all(torch.equal(few, every[:size]) for few, every in zip(part, whole, strict=True)):
                return 0
    finally:
        target.granule = target.tile
    return granule


def _alone(bench: Bench, x: Tensor, scores: Tensor, batch: int) -> bool:
    """Whether an endpoint that is asked several rows in a request answers the first few as when they are asked one by one."""
    return batch == 1 or torch.equal(torch.cat([bench.again(row, time=4) for row in torch.split(x[:_FEW], 1)]), scores[:_FEW])


def _chance(order: Order, bench: Bench, x: Tensor, scores: Tensor, labels: Tensor) -> Iterator[Finding]:
    """Clean accuracy no better than guessing usually means that the input is read wrongly: say which reading does better."""
    count, chance = len(x), 1 / scores.shape[1]
    accuracy = float((scores.argmax(1) == labels).float().mean())
    if count < 20 or accuracy > chance + 3 * (chance * (1 - chance) / count) ** 0.5:
        return
    best, name = max(((_accuracy(model, x, labels), name) for name, model in _readings(order, bench, x)), default=(0.0, ""))
    better = best > accuracy + 0.15
    yield Finding(
        code="chance_accuracy",
        message=f"Clean accuracy on the first {count} rows is {accuracy:.1%}, no better than guessing among {scores.shape[1]} classes.",
        hint=f"Read as {name}, the same rows give {best:.1%}: declare that at upload."
        if better
        else "Check labels, bounds, mean, std and layout.",
        evidence={"accuracy": accuracy, "chance": chance} | ({"better_reading": name, "accuracy_then": best} if better else {}),
    )


def _accuracy(model: torch.nn.Module, x: Tensor, labels: Tensor) -> float:
    try:
        with torch.no_grad():
            return float((model(x).argmax(1) == labels).float().mean())
    except (RuntimeError, ValueError, IndexError):
        return 0.0  # a reading that does not even fit


def _readings(order: Order, bench: Bench, x: Tensor) -> Iterator[tuple[str, torch.nn.Module]]:
    """Other ways to read the same rows, by name."""
    model = bench.model

    class Affine(torch.nn.Module):
        def __init__(self, scale: Tensor | float, shift: Tensor | float = 0.0) -> None:
            super().__init__()
            self.scale, self.shift = scale, shift

        def forward(self, rows: Tensor) -> Tensor:
            scores: Tensor = model(rows * self.scale + self.shift)
            return scores

    scale = bench.data.spec.scale or 1.0
    if float(x.max()) > 1.5:
        yield f"values in [0, 1] (scale={scale / 255:.9g} bounds=0,1)", Affine(1 / 255)
    else:
        yield f"values in 0..255 (scale={scale * 255:.9g} bounds=0,255)", Affine(255.0)
    yield "values in [-1, 1] (mean=0.5 std=0.5)", Affine(2.0, -1.0)
    axis = x.dim() - 1 if bench.data.spec.layout == "NHWC" else 1
    others = [at for at in range(x.dim()) if at != axis]
    mean, std = x.mean(others, keepdim=True), x.std(others, keepdim=True).clamp_min(1e-6)
    shown = ",".join(f"{value:.4g}" for value in mean.flatten()[:4].tolist())
    spread = ",".join(f"{value:.4g}" for value in std.flatten()[:4].tolist())
    yield f"normalised (mean={shown} std={spread}, as measured on these rows)", Affine(1 / std, -mean / std)
    if x.dim() == 4:
        for layout in ("NCHW", "NHWC"):
            if layout == (bench.data.spec.layout or "NCHW"):
                continue
            try:
                other = Prepared(bench.loaded, order.model.spec, bench.data.row_shape, layout)
            except Refused:
                continue
            yield f"data layout {layout} (layout={layout})", other.to(x.device).eval()
