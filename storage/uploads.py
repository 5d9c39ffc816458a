"""Models and datasets: what was uploaded, and how it is to be read."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, Engine, RowMapping, Table, delete, func, insert, or_, select

from sparring.contract.resources import DatasetInfo, ModelInfo, Page
from sparring.contract.retrained import Lineage
from sparring.contract.specs import DataFormat, DataSpec, ModelFormat, ModelSpec
from sparring.storage.artifacts import Blob
from sparring.storage.database import now, reading, writing
from sparring.storage.errors import InUse, Missing
from sparring.storage.ids import new_id
from sparring.storage.pages import moment, page
from sparring.storage.tables import datasets, inputs, jobs, lineages, models

Info = TypeVar("Info", ModelInfo, DatasetInfo)


def add_model(engine: Engine, *, project: str, name: str, blob: Blob, format: ModelFormat, spec: ModelSpec) -> ModelInfo:
    """Records an upload whose blob is stored already."""
    with writing(engine) as connection:
        return model_info(connection, _add(connection, models, new_id("mdl"), project, name, blob, format, spec))


def add_dataset(engine: Engine, *, project: str, name: str, blob: Blob, format: DataFormat, spec: DataSpec) -> DatasetInfo:
    """Records an upload whose blob is stored already."""
    with writing(engine) as connection:
        return dataset_info(connection, _add(connection, datasets, new_id("dat"), project, name, blob, format, spec))


def get_model(engine: Engine, project: str, ref: str) -> ModelInfo:
    """A model by id, or the newest upload of the bytes with this sha256 (`sha256:` may stand before it). Raises Missing."""
    with reading(engine) as connection:
        return find_model(connection, project, ref)


def get_dataset(engine: Engine, project: str, ref: str) -> DatasetInfo:
    """A dataset by id, or the newest upload of the bytes with this sha256 (`sha256:` may stand before it). Raises Missing."""
    with reading(engine) as connection:
        return find_dataset(connection, project, ref)


def list_models(engine: Engine, project: str, *, limit: int, cursor: str | None = None) -> Page[ModelInfo]:
    """A page of models, newest first. Raises BadCursor."""
    return _list(engine, models, project, model_info, limit, cursor)


def list_datasets(engine: Engine, project: str, *, limit: int, cursor: str | None = None) -> Page[DatasetInfo]:
    """A page of datasets, newest first. Raises BadCursor."""
    return _list(engine, datasets, project, dataset_info, limit, cursor)


def delete_model(engine: Engine, project: str, id: str) -> None:
    """Forgets a model. Raises Missing, and InUse while a job that is not final refers to it."""
    _delete(engine, models, project, id)


def delete_dataset(engine: Engine, project: str, id: str) -> None:
    """Forgets a dataset. Raises Missing, and InUse while a job that is not final refers to it."""
    _delete(engine, datasets, project, id)


def owner(engine: Engine, model_id: str) -> str:
    """The project that a model belongs to; only for who is allowed to see it whatever the project. Raises Missing."""
    with reading(engine) as connection:
        project: str | None = connection.scalar(select(models.c.project_id).where(models.c.id == model_id))
    if project is None:
        raise _missing(models, model_id)
    return project


def find_model(connection: Connection, project: str, ref: str) -> ModelInfo:
    """`get_model` inside a transaction; in one that writes, the model cannot be deleted before its end."""
    return model_info(connection, _find(connection, models, project, ref))


def find_dataset(connection: Connection, project: str, ref: str) -> DatasetInfo:
    """`get_dataset` inside a transaction; in one that writes, the dataset cannot be deleted before its end."""
    return dataset_info(connection, _find(connection, datasets, project, ref))


class Made(NamedTuple):
    """A model that a job made: its blob is stored already."""

    name: str
    blob: Blob
    format: ModelFormat
    spec: ModelSpec
    lineage: Lineage


def add_made(connection: Connection, project: str, job_id: str, made: Sequence[Made]) -> None:
    """Records the models of a job, in their order, inside a transaction."""
    for place, each in enumerate(made):
        row = _add(connection, models, new_id("mdl"), project, each.name, each.blob, each.format, each.spec)
        told = {"model_id": row["id"], "project_id": project, "job_id": job_id, "place": place, "body": each.lineage.model_dump_json()}
        connection.execute(insert(lineages).values(told))


def made_by(connection: Connection, job_id: str) -> tuple[str, ...]:
    """Ids of the models that a job made, in their order; of those that are still there."""
    query = select(lineages.c.model_id).where(lineages.c.job_id == job_id).order_by(lineages.c.place)
    return tuple(connection.scalars(query))


def maker(engine: Engine, project: str, model_id: str) -> str | None:
    """Id of the job that made a model; None where none did, or it was deleted."""
    query = select(lineages.c.job_id).where(lineages.c.project_id == project, lineages.c.model_id == model_id)
    with reading(engine) as connection:
        return connection.scalar(query)


def descendants(engine: Engine, project: str, model_id: str) -> tuple[ModelInfo, ...]:
    """The models that were trained from a model itself, newest first."""
    told = select(lineages.c.model_id, lineages.c.body).where(
        lineages.c.project_id == project, lineages.c.body.contains(model_id, autoescape=True)
    )
    with reading(engine) as connection:
        made = [row.model_id for row in connection.execute(told) if Lineage.model_validate_json(row.body).parent == model_id]
        query = select(models).where(models.c.id.in_(made)).order_by(models.c.created.desc(), models.c.id.desc())
        return tuple(model_info(connection, row) for row in connection.execute(query).mappings())


def namesakes(engine: Engine, project: str, name: str, limit: int = 50) -> tuple[ModelInfo, ...]:
    """The newest models of this name: versions of one another."""
    query = (
        select(models).where(models.c.project_id == project, models.c.name == name).order_by(models.c.created.desc(), models.c.id.desc())
    )
    with reading(engine) as connection:
        return tuple(model_info(connection, row) for row in connection.execute(query.limit(limit)).mappings())


def count(engine: Engine, project: str) -> tuple[int, int]:
    """How many models and how many datasets a project has."""
    with reading(engine) as connection:
        found = [
            connection.scalar(select(func.count()).select_from(table).where(table.c.project_id == project)) for table in (models, datasets)
        ]
    return found[0] or 0, found[1] or 0


def model_info(connection: Connection, row: RowMapping) -> ModelInfo:
    """A row of `models`, in the contract's words."""
    body = connection.scalar(select(lineages.c.body).where(lineages.c.model_id == row["id"]))
    lineage = Lineage.model_validate_json(body) if body else None
    return ModelInfo(**_common(row), spec=ModelSpec.model_validate_json(row["spec"]), lineage=lineage)


def dataset_info(connection: Connection, row: RowMapping) -> DatasetInfo:
    """A row of `datasets`, in the contract's words."""
    return DatasetInfo(**_common(row), spec=DataSpec.model_validate_json(row["spec"]))


def _common(row: RowMapping) -> dict[str, Any]:
    return {name: row[name] for name in ("id", "name", "sha256", "size", "format")} | {"created": moment(row["created"])}


def _add(
    connection: Connection, table: Table, id: str, project: str, name: str, blob: Blob, format: str, spec: ModelSpec | DataSpec
) -> RowMapping:
    row = {"id": id, "project_id": project, "name": name, "sha256": blob.sha256, "size": blob.size, "format": format}
    query = insert(table).values(**row, spec=spec.model_dump_json(), created=now()).returning(table)
    return connection.execute(query).mappings().one()


def _find(connection: Connection, table: Table, project: str, ref: str) -> RowMapping:
    digest = ref.removeprefix("sha256:")
    query = (
        select(table)
        .where(table.c.project_id == project, or_(table.c.id == ref, table.c.sha256 == digest))
        .order_by(table.c.created.desc(), table.c.id.desc())
        .limit(1)
    )
    if not connection.get_execution_options().get("reads", False):
        query = query.with_for_update(read=True)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise _missing(table, ref)
    return row


def _list(
    engine: Engine, table: Table, project: str, build: Callable[[Connection, RowMapping], Info], limit: int, cursor: str | None
) -> Page[Info]:
    with reading(engine) as connection:
        return page(connection, table, lambda row: build(connection, row), table.c.project_id == project, limit=limit, cursor=cursor)


def _delete(engine: Engine, table: Table, project: str, id: str) -> None:
    column = "model_id" if table is models else "data_id"
    used = or_(jobs.c[column] == id, jobs.c.id.in_(select(inputs.c.job_id).where(inputs.c[column] == id)))
    with writing(engine) as connection:
        row = connection.execute(select(table.c.id).where(table.c.project_id == project, table.c.id == id).with_for_update()).first()
        if row is None:
            raise _missing(table, id)
        job = connection.scalar(select(jobs.c.id).where(used, jobs.c.state.in_(["queued", "running"])).limit(1))
        if job is not None:
            raise InUse(f"{id} is needed by {job}, which has not ended: wait for it, or cancel it first")
        connection.execute(delete(table).where(table.c.id == id))


def _missing(table: Table, ref: str) -> Missing:
    noun = "model" if table is models else "dataset"
    return Missing(f"there is no {noun} {ref[:80]!r} in this project: upload it first, or list the {noun}s to find its id")
