"""Verdicts of gates, and baselines by their keys."""

from collections.abc import Sequence
from hashlib import sha256

from sqlalchemy import Connection, Engine, RowMapping, Table, select
from sqlalchemy import insert as insert_into

from sparring.contract.gates import BaselineInfo, BaselineLine, GateInfo, GateLine, GateRun
from sparring.contract.report import Score
from sparring.contract.resources import Page
from sparring.contract.verdict import Baseline
from sparring.storage.database import insert, now, reading, writing
from sparring.storage.errors import Missing
from sparring.storage.ids import new_id
from sparring.storage.pages import moment, page
from sparring.storage.tables import baselines, gates


def add_gate(engine: Engine, *, project: str, run: GateRun) -> GateInfo:
    """Keeps a gate that was run."""
    told = {"name": run.name, "exit_code": run.verdict.exit_code, "job": run.verdict.job, "body": run.model_dump_json()}
    with writing(engine) as connection:
        query = insert_into(gates).values(id=new_id("gat"), project_id=project, created=now(), **told).returning(gates)
        return _gate(connection.execute(query).mappings().one())


def get_gate(engine: Engine, project: str, id: str) -> GateInfo:
    """One of them. Raises Missing."""
    with reading(engine) as connection:
        return _gate(_row(connection, gates, project, id, "gate"))


def list_gates(engine: Engine, project: str, *, limit: int, cursor: str | None = None, name: str | None = None) -> Page[GateLine]:
    """A page of them, newest first; of models of one name if given. Raises BadCursor."""
    where = [gates.c.project_id == project, *([gates.c.name == name] if name is not None else [])]
    with reading(engine) as connection:
        return page(connection, gates, _line, *where, limit=limit, cursor=cursor)


def accept(engine: Engine, *, project: str, fresh: Sequence[Baseline]) -> tuple[BaselineLine, ...]:
    """Puts baselines in the places of those of the same keys: all of them at once, or none."""
    with writing(engine) as connection:
        return tuple(_accept(connection, project, each) for each in fresh)


def get_baseline(engine: Engine, project: str, id: str) -> BaselineInfo:
    """One of them. Raises Missing."""
    with reading(engine) as connection:
        return _baseline(_row(connection, baselines, project, id, "baseline"))


def list_baselines(
    engine: Engine,
    project: str,
    *,
    limit: int,
    cursor: str | None = None,
    branch: str | None = None,
    model: str | None = None,
    data: str | None = None,
) -> Page[BaselineLine]:
    """A page of them, the last accepted first; of one branch, model name or digest of the data if given. Raises BadCursor."""
    asked = {baselines.c.branch: branch, baselines.c.model: model, baselines.c.data: data}
    where = [baselines.c.project_id == project, *(column == value for column, value in asked.items() if value is not None)]
    with reading(engine) as connection:
        return page(connection, baselines, _baseline_line, *where, limit=limit, cursor=cursor)


def _accept(connection: Connection, project: str, fresh: Baseline) -> BaselineLine:
    key = fresh.key
    changes = {"body": fresh.model_dump_json(), "created": now()}
    row = {"id": new_id("bas"), "project_id": project, "key": sha256(key.model_dump_json().encode()).hexdigest()}
    row |= {"branch": key.branch, "model": key.model, "data": key.data}
    query = insert(connection, baselines).values(**row, **changes)
    upsert = query.on_conflict_do_update(index_elements=["project_id", "key"], set_=changes).returning(baselines)
    return _baseline_line(connection.execute(upsert).mappings().one())


def _row(connection: Connection, table: Table, project: str, id: str, noun: str) -> RowMapping:
    row = connection.execute(select(table).where(table.c.project_id == project, table.c.id == id)).mappings().first()
    if row is None:
        raise Missing(f"there is no {noun} {id[:80]!r} in this project: list the {noun}s to find its id")
    return row


def _gate(row: RowMapping) -> GateInfo:
    return GateInfo(id=row["id"], created=moment(row["created"]), **dict(GateRun.model_validate_json(row["body"])))


def _line(row: RowMapping) -> GateLine:
    return GateLine(created=moment(row["created"]), **{name: row[name] for name in ("id", "name", "exit_code", "job")})


def _baseline(row: RowMapping) -> BaselineInfo:
    return BaselineInfo(id=row["id"], created=moment(row["created"]), baseline=Baseline.model_validate_json(row["body"]))


def _baseline_line(row: RowMapping) -> BaselineLine:
    info = _baseline(row)
    kept = info.baseline
    score = Score(count=kept.count, total=kept.rows)
    return BaselineLine(id=info.id, created=info.created, key=kept.key, sha256=kept.sha256, score=score)
