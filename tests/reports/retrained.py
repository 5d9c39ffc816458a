"""A sample report of a retrain job: two defenses, the first of which is handed on."""

from sparring.contract.defenses import VAT, PGDTraining, Training
from sparring.contract.report import Finding, Report, Score
from sparring.contract.retrain import Retrain
from sparring.contract.retrained import DefenseResult, Epoch, Paired, Parts, RetrainReport
from tests.reports import factory

VALIDATION = 200
GAIN = {"pgd": 180, "vat": 60}
"""Rows that hold after and did not before, under every threat."""


def curve(epochs: int = 5, *, last: int = 0) -> tuple[Epoch, ...]:
    """Marks that rise evenly; `last`: rows under PGD that are lost in the last epoch."""
    made = []
    for epoch in range(1, epochs + 1):
        counts = {"clean": 150 + 5 * epoch, "single": 100 + 8 * epoch, "robust": 90 + 8 * epoch - (last if epoch == epochs else 0)}
        made.append(Epoch(epoch=epoch, loss=2 / epoch, **{name: Score(count=count, total=VALIDATION) for name, count in counts.items()}))
    return tuple(made)


def after(gain: int, *, clean: int = -12) -> Report:
    """The sample report of an evaluation with more rows that hold under every threat, and other clean accuracy."""
    before = factory.report()
    threats = tuple(factory.threat_result(found.threat, worst=found.worst.count + gain) for found in before.threats)
    return before.model_copy(update={"threats": threats, "clean": Score(count=factory.CLEAN + clean, total=factory.ROWS)})


def paired(before: int, gained: int, lost: int) -> Paired:
    """So many rows right before; some gained and some lost since."""
    return Paired(both=before - lost, lost=lost, gained=gained, neither=factory.ROWS - before - gained)


def result(name: str, **changes: object) -> DefenseResult:
    """What one defense gave; fields may be changed."""
    before, defense = factory.report(), {"pgd": PGDTraining(eps="4/255"), "vat": VAT()}[name]
    made = DefenseResult(
        name=name,
        defense=defense,
        gradients=defense.gradients,
        epochs=5,
        epoch=5,
        end="finished",
        curve=curve(),
        seconds=41.5,
        after=after(GAIN[name]),
        clean=paired(factory.CLEAN, 20, 32),
        robust=tuple(paired(found.worst.count, GAIN[name] + 4, 4) for found in before.threats),
        files={"pt2": f"model-{name}.pt2", "safetensors": f"model-{name}.safetensors"},
    )
    return made.model_copy(update=changes)


def report(*results: DefenseResult, warnings: tuple[Finding, ...] = (), advice: tuple[str, ...] | None = None) -> RetrainReport:
    """The sample; of other results where some are given, the first of which is handed on."""
    before, each = factory.report(), results or (result("pgd"), result("vat"))
    told = ("Use the model that pgd gave.", "None of them was measured on rows that it had learnt from.")
    return RetrainReport(
        job=Retrain(
            model=before.job.model,
            data=before.job.data,
            defenses=tuple(one.defense for one in each),
            training=Training(epochs=5),
            threats=factory.THREATS,
            seed=7,
        ),
        model=before.model,
        data=before.data,
        parts=Parts(training=4800, validation=VALIDATION, test=factory.ROWS),
        threats=factory.THREATS,
        before=before,
        each=each,
        chosen=each[0].name,
        warnings=warnings,
        advice=told if advice is None else advice,
        cost=before.cost,
        provenance=before.provenance,
    )
