"""A badge: the robust accuracy that was last measured, as a small picture; anyone may see it who knows its address."""

from fastapi import APIRouter, Request, Response

from sparring.contract.resources import ModelInfo
from sparring.reports.text import rate
from sparring.service.context import Context, Ctx
from sparring.service.web.measured import Measured, weakest
from sparring.service.web.view import render
from sparring.storage import uploads
from sparring.storage.errors import Missing

router = APIRouter(prefix="/badges")

_SHARED = "badge"
_HEADERS = {
    "Cache-Control": "public, max-age=300",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "cross-origin",
}
"""A page of another site shows it, and asks again after five minutes; nothing in it may run."""

_WIDTH = 6.6
"""Pixels of a letter, about."""
_COLOURS = {"reliable": "#2a6336", "unchecked": "#625e57", "suspect": "#8a4a00", "invalid": "#a01f1f"}


def svg(measured: Measured | None) -> str:
    """The badge; its colour is that of the trust, because a number alone says nothing."""
    label = f"robust ({measured.threat})" if measured else "robust"
    said = f"{rate(measured.robust)} {measured.trust}" if measured else "not measured"
    left, right = (round(len(word) * _WIDTH + 12) for word in (label, said))
    colour = _COLOURS[measured.trust] if measured else _COLOURS["unchecked"]
    return render("badge", label=label, said=said, left=left, right=right, colour=colour)


def of(context: Context, project: str, model: ModelInfo) -> str:
    """The badge of a model."""
    return svg(weakest(context, project, model))


def markdown(request: Request, context: Context, model: ModelInfo) -> str:
    """What a README says to show the badge."""
    return f"![robust accuracy]({request.base_url}badges/{context.sessions.share(_SHARED, model.id)}.svg)"


@router.get("/{word}.svg")
def shared_badge(context: Ctx, word: str) -> Response:
    """The badge to those who know its address: threat, rate and trust, and nothing else. 404 for any other word."""
    id = context.sessions.shared(_SHARED, word)
    if id is None:
        raise Missing("there is no badge at this address")
    project = uploads.owner(context.engine, id)
    model = uploads.get_model(context.engine, project, id)
    return Response(of(context, project, model), media_type="image/svg+xml", headers=_HEADERS)
