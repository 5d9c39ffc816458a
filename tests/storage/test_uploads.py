from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from sparring.contract.jobs import Job
from sparring.contract.resources import DatasetInfo, JobInfo, ModelInfo
from sparring.contract.specs import DataSpec, ModelSpec
from sparring.storage import attempts, jobs, uploads
from sparring.storage.artifacts import Blob
from sparring.storage.errors import BadCursor, InUse, Missing


def again(engine: Engine, model: ModelInfo, name: str = "again") -> ModelInfo:
    blob = Blob(model.sha256, model.size)
    return uploads.add_model(engine, project="default", name=name, blob=blob, format="pt2", spec=ModelSpec())


def test_an_upload_is_told_as_it_was_recorded(engine: Engine, model: ModelInfo, data: DatasetInfo) -> None:
    assert (model.name, model.size, model.format, model.spec) == ("net", 5, "pt2", ModelSpec(mean=(0.5,), std=(0.25,)))
    assert (data.name, data.size, data.format, data.spec) == ("digits", 4, "npz", DataSpec(bounds=(0, 1)))
    assert abs(datetime.now(UTC) - model.created) < timedelta(minutes=1)
    assert uploads.get_model(engine, "default", model.id) == model
    assert uploads.get_dataset(engine, "default", data.id) == data


def test_a_sha256_means_the_newest_upload_of_these_bytes(engine: Engine, model: ModelInfo, age: Callable[..., None]) -> None:
    age("models", "created", 10)
    newer = again(engine, model)
    for ref in (model.sha256, f"sha256:{model.sha256}"):
        assert uploads.get_model(engine, "default", ref) == newer


@pytest.mark.parametrize("ref", ["mdl_00000000000000000000", "0" * 64, "", "net", "' OR 1=1"])
def test_what_was_not_uploaded_is_missing(engine: Engine, model: ModelInfo, ref: str) -> None:
    with pytest.raises(Missing, match="upload it first"):
        uploads.get_model(engine, "default", ref)


def test_projects_do_not_see_each_other(engine: Engine, model: ModelInfo, data: DatasetInfo) -> None:
    for ref in (model.id, model.sha256):
        with pytest.raises(Missing):
            uploads.get_model(engine, "other", ref)
    assert uploads.list_models(engine, "other", limit=10).items == ()
    with pytest.raises(Missing):
        uploads.delete_dataset(engine, "other", data.id)


def test_a_model_has_one_owner(engine: Engine, model: ModelInfo) -> None:
    assert uploads.owner(engine, model.id) == "default"
    for ref in (model.sha256, "mdl_00000000000000000000", ""):
        with pytest.raises(Missing):
            uploads.owner(engine, ref)


def test_lists_come_in_pages_newest_first(engine: Engine, model: ModelInfo) -> None:
    made = [model, *(again(engine, model, str(number)) for number in range(4))]
    seen, cursor = [], None
    while True:
        page = uploads.list_models(engine, "default", limit=2, cursor=cursor)
        seen += page.items
        if (cursor := page.next_cursor) is None:
            break
        assert len(page.items) == 2
    assert {each.id for each in seen} == {each.id for each in made}
    assert seen == sorted(seen, key=lambda each: (each.created, each.id), reverse=True)
    assert len(seen) == 5


def test_an_upload_while_paging_neither_repeats_nor_hides_a_row(engine: Engine, model: ModelInfo, age: Callable[..., None]) -> None:
    others = {again(engine, model).id for _ in range(2)}
    age("models", "created", 10)
    first = uploads.list_models(engine, "default", limit=1)
    again(engine, model)
    rest = uploads.list_models(engine, "default", limit=10, cursor=first.next_cursor)
    assert {each.id for each in (*first.items, *rest.items)} == {model.id, *others}
    assert len(rest.items) == 2


@pytest.mark.parametrize("cursor", ["", "!", "AAAA", "bm9wZSBub3Bl", "\x00é"])
def test_a_cursor_of_somebody_else_s_is_refused(engine: Engine, cursor: str) -> None:
    with pytest.raises(BadCursor, match="begin at the start"):
        uploads.list_datasets(engine, "default", limit=1, cursor=cursor)


def test_what_a_job_needs_cannot_be_deleted_until_it_has_ended(
    engine: Engine, queued: JobInfo, model: ModelInfo, data: DatasetInfo
) -> None:
    for state in ("queued", "running"):
        assert jobs.get(engine, "default", queued.id).state == state
        with pytest.raises(InUse, match=queued.id):
            uploads.delete_model(engine, "default", model.id)
        with pytest.raises(InUse, match=queued.id):
            uploads.delete_dataset(engine, "default", data.id)
        attempts.claim(engine, queued.id, 1, worker="w", lease=60)
    assert attempts.finish(engine, queued.id, 1, state="succeeded")
    uploads.delete_model(engine, "default", model.id)
    uploads.delete_dataset(engine, "default", data.id)
    with pytest.raises(Missing):
        uploads.delete_model(engine, "default", model.id)
    assert jobs.get(engine, "default", queued.id).state == "succeeded"


def test_a_job_for_a_deleted_model_is_not_tried_again(engine: Engine, job: Job, model: ModelInfo) -> None:
    accepted = jobs.accept(engine, job)[0]
    jobs.cancel(engine, "default", accepted.id)
    uploads.delete_model(engine, "default", model.id)
    with pytest.raises(Missing, match="deleted"):
        jobs.retry(engine, "default", accepted.id)
