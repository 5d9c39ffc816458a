"""The page of a model that a job made says where it comes from."""

from sparring.contract.defenses import EnsembleTraining, Training
from sparring.contract.resources import ModelInfo
from sparring.contract.retrained import Lineage, Recipe, Source
from sparring.storage import jobs, uploads
from sparring.storage.artifacts import Blob
from sparring.storage.database import writing
from sparring.storage.uploads import Made

from ..conftest import Served, job_for, upload_both
from .conftest import Browser


def test_a_version_names_what_it_was_trained_against(browser: Browser, shared: Served) -> None:
    parent, data = upload_both(shared)
    rival = rivals(shared, "a rival")
    gone = Source(id="mdl_" + "0" * 20, sha256="0" * 64)
    recipe = Recipe(defense=EnsembleTraining(models=(rival.id,)), training=Training(), scratch=False, precision="exact", epoch=3)
    lineage = Lineage(
        parent=parent.id,
        parent_sha256=parent.sha256,
        data=data.id,
        data_sha256=data.sha256,
        surrogates=(Source(id=rival.id, sha256=rival.sha256), gone),
        recipe=recipe,
        seed=0,
        parting=0,
    )
    job = shared.http.post("/v1/jobs", json=job_for(parent.id, data.id)).json()["id"]
    with writing(shared.engine) as connection:
        uploads.add_made(connection, "default", job, [Made("held", Blob("e" * 64, 1), "pt2", parent.spec, lineage)])
    (made,) = jobs.get(shared.engine, "default", job).models
    page = browser.get(f"/models/{made}").text
    assert f'against <a href="/models/{rival.id}">a rival</a>, ' in page
    assert f"{gone.id[:16]}… (deleted)" in page
    assert "those of epoch 3" in page
    told = shared.http.get(f"/v1/models/{made}").json()["lineage"]["surrogates"]
    assert told == [{"id": rival.id, "sha256": rival.sha256}, {"id": gone.id, "sha256": gone.sha256}]


def rivals(served: Served, name: str) -> ModelInfo:
    """Another upload."""
    parent, _ = upload_both(served)
    return uploads.add_model(served.engine, project="default", name=name, blob=Blob(parent.sha256, 1), format="pt2", spec=parent.spec)
