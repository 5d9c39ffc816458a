"""What the figures of a retrain job say: which defense is handed on, what speaks against it, and what to try next."""

from collections.abc import Iterator, Sequence

from sparring.contract.attacks import Transfer
from sparring.contract.defenses import Adversarial, EnsembleTraining
from sparring.contract.report import AttackResult, Finding, Report, Score
from sparring.contract.retrain import Retrain
from sparring.contract.retrained import DefenseResult, Epoch, Paired

ALARM = 0.2
"""How far accuracy under PGD must fall below its best, or below that under the single step, to be called catastrophic overfitting."""
SURE = 0.05
"""P-value below which two models count as different."""
_RISING = 0.02


def choose(job: Retrain, marks: Sequence[tuple[int, int]]) -> int:
    """The defense that did best on the validation rows: most rows right under PGD, then clean, then the cheapest, then the first."""
    return max(range(len(marks)), key=lambda at: (*marks[at], -job.defenses[at].gradients, -at))


def findings(result: DefenseResult) -> Iterator[Finding]:
    """What a reader must know of one defense before believing its figures."""
    if result.end in ("diverged", "overfitting"):
        yield Finding(
            code=result.end,
            message=f"The training with {result.name} ended early: {result.reason}.",
            hint=f"The weights of epoch {result.epoch} are handed on. Lower the rate, or set clip."
            if result.end == "diverged"
            else f"The weights of epoch {result.epoch} are handed on. Take more steps (pgd, trades), or a smaller eps.",
            evidence={"epoch": result.epoch, "epochs": result.epochs},
        )
    yield from _overfitted(result)
    if result.clean.p_value < SURE and result.clean.change < 0:
        yield Finding(
            code="clean_accuracy_lost",
            message=f"{result.name} costs clean accuracy: {result.clean.lost} rows were lost and {result.clean.gained} gained "
            f"({100 * result.clean.change:+.1f} points, p = {result.clean.p_value:.2g}).",
            hint="Take a smaller eps, or trades with a smaller beta; more data helps too.",
            evidence={"lost": result.clean.lost, "gained": result.clean.gained, "p_value": result.clean.p_value},
        )


def _overfitted(result: DefenseResult) -> Iterator[Finding]:
    """The single step is withstood and several steps are not: on the validation rows in some epoch, or in the model that is handed on."""
    if fallen := _fall(result.curve):
        before, after = fallen
        yield Finding(
            code="catastrophic_overfitting",
            message=f"With {result.name} accuracy under PGD fell from {_percent(before.robust)} to {_percent(after.robust)} of the "
            f"validation rows by epoch {after.epoch}, while that under the single step stayed at {_percent(after.single)}.",
            hint=f"The weights of epoch {result.epoch} are handed on. The model had learnt to fool the single step alone: "
            "take more steps (pgd, trades), or a smaller eps.",
            evidence={"epoch": after.epoch, "best_epoch": before.epoch},
        )
    for threat in result.after.threats:
        single, several = _weakest(threat.each, ("fgsm", "fgm")), _weakest(threat.each, ("pgd",))
        if single and several and single.robust.rate - several.robust.rate > 2 * ALARM:
            yield Finding(
                code="single_step_alone",
                message=f"The model that {result.name} gave withstands the single step on {_percent(single.robust)} of the rows, and PGD "
                f"on {_percent(several.robust)}, under {threat.threat.norm} {threat.threat.eps}.",
                hint="It has learnt to fool the single step: take more steps (pgd, trades), or a smaller eps.",
                evidence={"norm": threat.threat.norm, "eps": threat.threat.radius},
            )


def _fall(curve: Sequence[Epoch]) -> tuple[Epoch, Epoch] | None:
    """The best epoch under PGD before the deepest fall, and where that ended; None where PGD and the single step went together."""
    best: Epoch | None = None
    deepest: tuple[float, Epoch, Epoch] | None = None
    for epoch in curve:
        if epoch.robust is None or epoch.single is None:
            continue
        if best is not None and best.robust is not None and best.single is not None:
            fall = best.robust.rate - epoch.robust.rate
            if fall > ALARM and epoch.single.rate > best.single.rate - fall / 2 and (deepest is None or fall > deepest[0]):
                deepest = fall, best, epoch
        if best is None or best.robust is None or epoch.robust.rate > best.robust.rate:
            best = epoch
    return deepest[1:] if deepest else None


def _weakest(each: Sequence[AttackResult], kinds: tuple[str, ...]) -> AttackResult | None:
    return min((one for one in each if one.attack.kind in kinds), key=lambda one: one.robust.rate, default=None)


def warnings(job: Retrain, before: Report, each: Sequence[DefenseResult]) -> Iterator[Finding]:
    """What is to be known of the job as a whole."""
    if job.test is None and not job.scratch:
        yield Finding(
            code="test_rows_seen",
            message="The test rows are part of the data that were given: if the model had been trained on them before it was uploaded, "
            "its figures are too good, those before most of all.",
            hint="Give rows that the model has never seen as `test`.",
        )
    yield from (finding for result in each for finding in result.findings)


def advice(before: Report, each: Sequence[DefenseResult], chosen: DefenseResult, beside: dict[str, list[Paired]]) -> Iterator[str]:
    """What the figures suggest, in sentences. `beside`: the rows of each defense and of the chosen one together, under each threat."""
    gains = [paired for paired in chosen.robust if paired.change > 0 and paired.p_value < SURE]
    if not gains:
        yield (
            f"No defense made the model measurably more robust on these {before.clean.total} test rows: "
            "train for more epochs, take a larger eps to train against, or measure on more rows."
        )
    else:
        told = ", ".join(
            f"{_percent(threat.worst)} under {threat.threat.norm} {threat.threat.eps} instead of {_percent(was.worst)}"
            for threat, was in zip(chosen.after.threats, before.threats, strict=True)
        )
        yield f"Use the model that {chosen.name} gave: {told}."
    yield from _cheaper(each, chosen, beside)
    if _still_rising(chosen.curve, chosen.epochs) and chosen.end == "finished":
        yield f"Accuracy under PGD was still rising when {chosen.name} ended: train for more epochs than {chosen.epochs}."
    if chosen.epochs - chosen.epoch > max(3, chosen.epochs // 4):
        yield (
            f"{chosen.name} was at its best after epoch {chosen.epoch} of {chosen.epochs} and then learnt the training rows by heart: "
            "fewer epochs do, or try average=ema, awp=0.005 or more data."
        )
    tried = any(isinstance(attack.attack, Transfer) for threat in before.threats for attack in threat.each)
    if not tried and any(isinstance(result.defense, EnsembleTraining) for result in each):
        yield (
            "What ensemble guards against, examples made on other models, was not tried here: evaluate the new version with "
            "transfer:models=…, naming one that was no surrogate."
        )
    if not any(isinstance(result.defense, Adversarial) for result in each):
        yield "None of these defenses trains on attacks. pgd and trades are dearer, and mostly give more robust models."


def _cheaper(each: Sequence[DefenseResult], chosen: DefenseResult, beside: dict[str, list[Paired]]) -> Iterator[str]:
    """Defenses that cost less and can hardly be told from the one that was chosen."""
    for result in each:
        if result.name == chosen.name or result.gradients >= chosen.gradients:
            continue
        if all(paired.p_value > SURE for paired in beside[result.name]):
            yield (
                f"On the test rows {result.name} cannot be told from {chosen.name}, and it costs {result.gradients} gradients a row and "
                f"epoch instead of {chosen.gradients}."
            )


def _still_rising(curve: Sequence[Epoch], epochs: int) -> bool:
    known = [epoch for epoch in curve if epoch.robust is not None]
    if len(known) < 4:
        return False
    late = [epoch.robust.rate for epoch in known[-max(2, len(known) // 4) :] if epoch.robust]
    return late[-1] - late[0] > _RISING and late[-1] >= max(late)


def _percent(score: Score | None) -> str:
    return "–" if score is None or not score.total else f"{100 * score.rate:.1f} %"


def paired(before: Sequence[bool], after: Sequence[bool]) -> Paired:
    """Rows counted by whether each model was right."""
    pairs = list(zip(before, after, strict=True))
    return Paired(
        both=sum(one and two for one, two in pairs),
        lost=sum(one and not two for one, two in pairs),
        gained=sum(two and not one for one, two in pairs),
        neither=sum(not (one or two) for one, two in pairs),
    )
