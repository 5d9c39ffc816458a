"""Pages of gates: what was decided so far, and one verdict with its rules."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from sparring.service.gates import GateQuery
from sparring.service.web.names import VERDICTS
from sparring.service.web.view import Seen
from sparring.storage import gates

router = APIRouter(prefix="/gates")

PAGE = 25


@router.get("")
def gate_list(page: Seen, query: Annotated[GateQuery, Query()]) -> Response:
    """The newest first; of models of one name if asked."""
    found = gates.list_gates(page.context.engine, page.project, limit=min(query.limit, PAGE), cursor=query.cursor, name=query.name)
    kept = gates.list_baselines(page.context.engine, page.project, limit=PAGE)
    return page.show("gates", lines=found.items, next_cursor=found.next_cursor, name=query.name, baselines=kept.items, verdicts=VERDICTS)


@router.get("/{gate_id}")
def gate_page(page: Seen, gate_id: str) -> Response:
    """One verdict."""
    return page.show("gate", gate=gates.get_gate(page.context.engine, page.project, gate_id), verdicts=VERDICTS)
