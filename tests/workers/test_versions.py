"""What is recorded of a model that a job made: where it comes from, and against whom."""

from datetime import UTC, datetime

from sparring.contract.defenses import EnsembleTraining
from sparring.contract.resources import DatasetInfo, ModelInfo
from sparring.contract.retrained import Source
from sparring.contract.specs import DataSpec, ModelSpec
from sparring.storage.artifacts import Blob
from sparring.storage.attempts import Claim
from sparring.workers.versions import made
from tests.reports import retrained

NOW = datetime.now(UTC)


def model(letter: str) -> ModelInfo:
    return ModelInfo(id=f"mdl_{letter * 20}", name=letter, sha256=letter * 64, size=1, format="pt2", spec=ModelSpec(), created=NOW)


def test_the_lineage_names_every_surrogate_by_id_and_digest_however_the_job_named_it() -> None:
    one, two = model("b"), model("c")
    named = (one.id, f"sha256:{two.sha256}", one.id)
    report = retrained.report(retrained.result("pgd", defense=EnsembleTraining(models=named)), retrained.result("vat"))
    data = DatasetInfo(id="dat_" + "d" * 20, name="d", sha256="d" * 64, size=1, format="npz", spec=DataSpec(), created=NOW)
    others: dict[str, ModelInfo | DatasetInfo] = {named[0]: one, named[1]: two}
    claim = Claim("job_" + "a" * 20, 1, "default", report.job, model("a"), data, others, 0.0)
    files = {name: Blob("f" * 64, 1) for result in report.each for name in result.files.values()}
    against, alone = made(report, claim, files)
    assert against.lineage.surrogates == (Source(id=one.id, sha256=one.sha256), Source(id=two.id, sha256=two.sha256))
    assert alone.lineage.surrogates == ()
    assert against.lineage.recipe.defense == report.best.defense
