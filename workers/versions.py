"""The models that a job made, as they are recorded: each a new version of the one that was uploaded."""

from collections.abc import Iterator, Mapping

from sparring.contract.defenses import EnsembleTraining
from sparring.contract.retrained import DefenseResult, Lineage, Recipe, RetrainReport, Source
from sparring.storage.artifacts import Blob
from sparring.storage.attempts import Claim
from sparring.storage.uploads import Made

_LONGEST = 100  # of a model's name


def made(report: RetrainReport, claim: Claim, files: Mapping[str, Blob]) -> tuple[Made, ...]:
    """The model of every defense in the form that was uploaded, the one that was chosen first.

    Raises:
        ValueError: the report speaks of another job, or of a file that is not there.
    """
    if report.job != claim.job:
        raise ValueError("the report is that of another job")
    return tuple(_made(report, result, claim, files) for result in _ordered(report))


def _ordered(report: RetrainReport) -> Iterator[DefenseResult]:
    yield report.best
    yield from (result for result in report.each if result.name != report.chosen)


def _made(report: RetrainReport, result: DefenseResult, claim: Claim, files: Mapping[str, Blob]) -> Made:
    name = result.files.get(claim.model.format, "")
    if name not in files:
        raise ValueError(f"the model of {result.name} is not among the files")
    job, unlabelled = report.job, claim.others.get("unlabelled")
    against = result.defense.models if isinstance(result.defense, EnsembleTraining) else ()
    recipe = Recipe(defense=result.defense, training=job.training, scratch=job.scratch, precision=job.precision, epoch=result.epoch)
    lineage = Lineage(
        parent=claim.model.id,
        parent_sha256=claim.model.sha256,
        data=claim.data.id,
        data_sha256=claim.data.sha256,
        unlabelled=unlabelled.id if unlabelled else None,
        surrogates=tuple(Source(id=claim.others[ref].id, sha256=claim.others[ref].sha256) for ref in dict.fromkeys(against)),
        recipe=recipe,
        seed=job.training.seed,
        parting=job.seed,
    )
    return Made(_name(claim.model.name, result.name), files[name], claim.model.format, claim.model.spec, lineage)


def _name(parent: str, defense: str) -> str:
    """`mine pgd`, cut to the length that a name may have."""
    ending = f" {defense}"
    return parent[: _LONGEST - len(ending)] + ending
