"""Gates: verdicts kept, and the baselines that drops are measured against."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from sparring.contract.fields import Sha256
from sparring.contract.gate import Branch
from sparring.contract.gates import Accepting, BaselineInfo, BaselineLine, GateInfo, GateLine, GateRun
from sparring.contract.resources import Name, Page
from sparring.service.auth import Project
from sparring.service.context import MAX_BODY, Ctx
from sparring.service.pages import Linking, PageQuery
from sparring.storage import gates

MOST = 64 * MAX_BODY
"""Bytes of the baselines that are accepted at once."""

router = APIRouter(tags=["gates"])


class GateQuery(PageQuery):
    """Which gates to list."""

    name: Name | None = None
    """What baselines of the model are kept under."""


class BaselineQuery(PageQuery):
    """Which baselines to list."""

    branch: Branch | None = None
    model: Name | None = None
    """The name it is kept under."""
    data: Sha256 | None = None


@router.post("/gates", status_code=201, summary="Keep a verdict", max_body_size=4 * MAX_BODY)
def add_gate(context: Ctx, project: Project, run: GateRun, response: Response) -> GateInfo:
    """What `sparring gate` found, with the policy it was held against. It was judged there, and nothing is judged again."""
    info = gates.add_gate(context.engine, project=project, run=run)
    response.headers["Location"] = f"/v1/gates/{info.id}"
    return info


@router.get("/gates", summary="All gates")
def list_gates(context: Ctx, project: Project, query: Annotated[GateQuery, Query()], links: Linking) -> Page[GateLine]:
    """The newest first; of models of one name if asked."""
    page = gates.list_gates(context.engine, project, limit=query.limit, cursor=query.cursor, name=query.name)
    links.to_next(page)
    return page


@router.get("/gates/{gate_id}", summary="One gate")
def get_gate(context: Ctx, project: Project, gate_id: str) -> GateInfo:
    """Verdict and policy."""
    return gates.get_gate(context.engine, project, gate_id)


@router.put("/baselines", summary="Accept baselines", max_body_size=MOST)
def accept_baselines(context: Ctx, project: Project, accepting: Accepting) -> list[BaselineLine]:
    """Puts them in the places of those of the same keys (branch, model name, data, threat, suite); nothing else changes a baseline."""
    return list(gates.accept(context.engine, project=project, fresh=accepting.baselines))


@router.get("/baselines", summary="All baselines")
def list_baselines(context: Ctx, project: Project, query: Annotated[BaselineQuery, Query()], links: Linking) -> Page[BaselineLine]:
    """The last accepted first, without their rows; of one branch, model name or digest of the data if asked."""
    asked = query.model_dump(exclude={"limit", "cursor"})
    page = gates.list_baselines(context.engine, project, limit=query.limit, cursor=query.cursor, **asked)
    links.to_next(page)
    return page


@router.get("/baselines/{baseline_id}", summary="One baseline")
def get_baseline(context: Ctx, project: Project, baseline_id: str) -> BaselineInfo:
    """What became of every row when it was accepted."""
    return gates.get_baseline(context.engine, project, baseline_id)
