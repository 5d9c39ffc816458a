import hashlib
import json
import zipfile

import pytest

from sparring.bundle import bundle
from sparring.contract.jobs import Evaluate
from sparring.errors import ApiError, UsageProblem
from tests.client.conftest import FILES
from tests.client.gate import sample


@pytest.fixture
def job(client, files, worker):
    worker()
    model, data = (family.upload(path).id for family, path in zip((client.models, client.datasets), files, strict=True))
    submitted = client.jobs.submit(Evaluate(model=model, data=data, threats=(sample.NEAR,)))
    return client.jobs.wait(submitted.id)


def test_a_bundle_holds_all_that_is_needed_to_check_a_report(client, job, files, tmp_path):
    bundle(client, job, tmp_path / "report.zip")
    with zipfile.ZipFile(tmp_path / "report.zip") as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(found.pop("manifest.json"))
    assert manifest["job"] == job.id
    assert manifest["files"] == {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}
    assert found == {
        **{name: FILES[name] for name in ("report.json", "report.html", "rows.csv", "examples.npz")},
        "model.pt2": files[0].read_bytes(),
        "data.npz": files[1].read_bytes(),
    }


def test_pictures_go_with_it_where_there_are_any(client, files, worker, tmp_path):
    worker(files={**FILES, "pictures.zip": b"PK pictures"})
    model, data = (family.upload(path).id for family, path in zip((client.models, client.datasets), files, strict=True))
    submitted = client.jobs.submit(Evaluate(model=model, data=data, threats=(sample.NEAR,)))
    bundle(client, client.jobs.wait(submitted.id), tmp_path / "report.zip")
    with zipfile.ZipFile(tmp_path / "report.zip") as archive:
        assert archive.read("pictures.zip") == b"PK pictures"
        assert "pictures.zip" in json.loads(archive.read("manifest.json"))["files"]


def test_the_same_job_makes_the_same_bytes(client, job, tmp_path):
    for name in ("a.zip", "b.zip"):
        bundle(client, job, tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_what_is_gone_or_cannot_be_written_is_told(client, job, tmp_path):
    with pytest.raises(UsageProblem, match="cannot be written"):
        bundle(client, job, tmp_path / "nowhere" / "report.zip")
    client.models.download(job.job.model, tmp_path / "again.pt2")
    with pytest.raises(ApiError):
        client.models.download("mdl_" + "0" * 20, tmp_path / "none.pt2")
    assert not (tmp_path / "none.pt2").exists()
