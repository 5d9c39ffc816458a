"""Which earlier evaluations are replayed: the newest of each version that a model comes from, on the same data; or those named."""

from hashlib import sha256

import pytest
from sqlalchemy import Engine

from sparring.contract.defenses.adversarial import PGDTraining
from sparring.contract.defenses.training import Training
from sparring.contract.jobs import JOB, Job
from sparring.contract.resources import DatasetInfo, ModelInfo
from sparring.contract.retrained import Lineage, Recipe
from sparring.storage import attempts, jobs, uploads
from sparring.storage.artifacts import Blob
from sparring.storage.database import writing
from sparring.storage.errors import KeyReused, Unfit
from sparring.storage.uploads import Made


def evaluated(engine: Engine, model: str, data: str, *, state: str = "succeeded", key: str | None = None, **more: object) -> str:
    """An evaluation that has ended."""
    id = jobs.accept(engine, wanted(model, data, **more), key=key)[0].id
    assert attempts.claim(engine, id, 1, worker="w", lease=60)
    files = {"examples.npz": Blob(sha256(id.encode()).hexdigest(), 9)} if state == "succeeded" else {}
    assert attempts.finish(engine, id, 1, state=state, files=files)
    return id


def wanted(model: str, data: str, **more: object) -> Job:
    return JOB.validate_python({"kind": "evaluate", "model": model, "data": data, "threats": [{"norm": "linf", "eps": "8/255"}]} | more)


def version(engine: Engine, parent: ModelInfo, data: DatasetInfo) -> ModelInfo:
    """A model that a job made of another."""
    recipe = Recipe(defense=PGDTraining(), training=Training(), scratch=False, precision="exact", epoch=1)
    told = {"parent": parent.id, "parent_sha256": parent.sha256, "data": data.id, "data_sha256": data.sha256}
    lineage = Lineage(**told, unlabelled=None, recipe=recipe, seed=0, parting=0)
    job = jobs.accept(engine, wanted(parent.id, data.id, replay=[]))[0].id
    blob = Blob(sha256(parent.id.encode()).hexdigest(), 1)
    with writing(engine) as connection:
        uploads.add_made(connection, "default", job, [Made("net pgd", blob, "pt2", parent.spec, lineage)])
    (made,) = jobs.get(engine, "default", job).models
    return uploads.get_model(engine, "default", made)


def replayed(engine: Engine, model: str, data: str, **more: object) -> tuple[str, ...] | None:
    job = jobs.accept(engine, wanted(model, data, **more))[0].job
    assert job.kind == "evaluate"
    return job.replay


def test_the_newest_evaluation_of_each_version_it_comes_from(engine: Engine, model: ModelInfo, data: DatasetInfo) -> None:
    evaluated(engine, model.id, data.id)
    first = evaluated(engine, model.id, data.id)
    evaluated(engine, model.id, data.id, state="failed")
    evaluated(engine, model.id, data.id, threats=[{"norm": "l2", "eps": 1}])
    child = version(engine, model, data)
    assert replayed(engine, child.id, data.id) == (first,)
    assert replayed(engine, model.id, data.id) is None
    second = evaluated(engine, child.id, data.id)
    grandchild = version(engine, child, data)
    assert replayed(engine, grandchild.id, data.id) == (second, first)
    assert replayed(engine, grandchild.id, data.id, replay=[]) == ()
    assert replayed(engine, grandchild.id, data.id, knowledge=["white"]) is None
    other = uploads.add_dataset(engine, project="default", name="d", blob=Blob("e" * 64, 1), format="npz", spec=data.spec)
    assert replayed(engine, grandchild.id, other.id) is None


def test_the_worker_is_told_where_they_lie(engine: Engine, model: ModelInfo, data: DatasetInfo) -> None:
    first = evaluated(engine, model.id, data.id)
    job = jobs.accept(engine, wanted(model.id, data.id, replay=[first]))[0]
    claim = attempts.claim(engine, job.id, 1, worker="w", lease=60)
    assert claim
    (kept,) = claim.earlier
    assert (kept.job, kept.sha256, kept.threats) == (first, sha256(first.encode()).hexdigest(), job.job.threats)


def test_one_that_is_forgotten_meanwhile_is_left_out(engine: Engine, model: ModelInfo, data: DatasetInfo) -> None:
    first = evaluated(engine, model.id, data.id)
    job = jobs.accept(engine, wanted(model.id, data.id, replay=[first]))[0]
    jobs.delete(engine, "default", first)
    claim = attempts.claim(engine, job.id, 1, worker="w", lease=60)
    assert claim
    assert claim.earlier == ()


def test_one_that_kept_nothing_for_these_rows_is_refused(engine: Engine, model: ModelInfo, data: DatasetInfo) -> None:
    failed = evaluated(engine, model.id, data.id, state="failed")
    other = uploads.add_dataset(engine, project="default", name="d", blob=Blob("e" * 64, 1), format="npz", spec=data.spec)
    elsewhere = evaluated(engine, model.id, other.id)
    for name in (failed, elsewhere, "job_" + "0" * 20):
        with pytest.raises(Unfit, match=r"replay.0: job_\w+ is no evaluation of these data"):
            jobs.accept(engine, wanted(model.id, data.id, replay=[name]))


def test_a_key_stands_for_the_job_as_it_was_asked_for(engine: Engine, model: ModelInfo, data: DatasetInfo) -> None:
    child = version(engine, model, data)
    before, _ = jobs.accept(engine, wanted(child.id, data.id), key="k")
    evaluated(engine, model.id, data.id)
    assert jobs.accept(engine, wanted(child.id, data.id), key="k")[0].id == before.id
    chosen, _ = jobs.accept(engine, wanted(child.id, data.id), key="k2")
    assert chosen.job.kind == "evaluate"
    assert chosen.job.replay
    assert jobs.accept(engine, wanted(child.id, data.id), key="k2")[0].id == chosen.id
    with pytest.raises(KeyReused):
        jobs.accept(engine, wanted(child.id, data.id, replay=[]), key="k2")
