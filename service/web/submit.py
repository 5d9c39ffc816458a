"""The forms of new jobs: short, with presets, and an estimate of the time."""

import secrets
from collections.abc import Callable
from typing import Any, NamedTuple

from fastapi import APIRouter, Response
from fastapi_problem.error import Problem
from pydantic import ValidationError

from sparring.contract.attacks import PURPOSES
from sparring.contract.catalogue import ATTACK_INFOS, DEFENSE_INFOS
from sparring.contract.certificates import CERTIFICATES
from sparring.contract.defenses import DEFENSES, Adversarial
from sparring.contract.jobs import JOB, AnyJob
from sparring.contract.resources import JobInfo
from sparring.service import jobs as api
from sparring.service.problems import Fault, invalid
from sparring.service.web.estimate import estimated, words
from sparring.service.web.faults import Faults, of_problem, of_validation
from sparring.service.web.fields import Fields, Filled, parsed
from sparring.service.web.view import Seen
from sparring.storage import uploads
from sparring.storage.errors import KeyReused, Missing, Unfit

router = APIRouter()

LISTED = 200
"""Models and datasets that a form offers at most."""
FIRST = ("pgd", "trades", "free", "fast", "vat", "plain")
"""Defenses that a form offers at once; the others are folded away."""
FIRST_ATTACKS = ("pgd", "apgd", "fgsm", "fmn", "square")
"""Attacks that a form offers at once."""
_AROUND = frozenset(str(defense.model_fields["kind"].default) for defense in DEFENSES if issubclass(defense, Adversarial))
_ASKING = frozenset({"evaluate", "craft"})
"""Kinds of jobs that can be done to an endpoint."""
_PLAIN = ("seed", "device", "precision", "suite")
_PLACES = (
    *((f"/{name}", name) for name in ("model", "data", "rows", "suite", "knowledge", "seed", "precision", "device", "timeout", "defenses")),
    *((f"/{name}", name) for name in ("attack", "method")),
    *(("/threats", "eps"), ("/threat", "eps"), ("/threat/norm", "norm"), ("/method/sigma", "sigma")),
    *(("/training", "epochs"), ("/training/epochs", "epochs")),
)


class Kind(NamedTuple):
    """A kind of job that can be asked for by a form."""

    path: str
    build: Callable[[Fields], dict[str, Any]]
    presets: dict[str, list[str]]


def _numbers(text: str) -> list[str]:
    return [part.strip() for part in text.replace(";", ",").split(",") if part.strip()]


def _common(fields: Fields) -> dict[str, Any]:
    job: dict[str, Any] = {"model": fields.one("model"), "data": fields.one("data")}
    job |= {name: fields.one(name) for name in _PLAIN if fields.one(name)}
    job |= {"rows": fields.one("rows")} if fields.one("rows") else {}
    return job | ({"timeout": _seconds(fields.one("timeout"))} if fields.one("timeout") else {})


def _seconds(hours: str) -> float | str:
    """Hours as seconds; what is no number is left for the contract to refuse."""
    try:
        return float(hours) * 3600
    except ValueError:
        return hours


def _evaluate(fields: Fields) -> dict[str, Any]:
    threats = [{"norm": fields.one("norm"), "eps": eps} for eps in _numbers(fields.one("eps"))]
    knowledge = {"knowledge": fields.many("knowledge")} if "knowledge" in fields else {}
    return {"kind": "evaluate", **_common(fields), "threats": threats, **knowledge}


def _retrain(fields: Fields) -> dict[str, Any]:
    ball = {name: fields.one(name) for name in ("norm", "eps") if fields.one(name)}
    defenses = [{"kind": kind, **(ball if kind in _AROUND else {})} for kind in fields.many("defense")]
    training = {"epochs": fields.one("epochs")} if fields.one("epochs") else {}
    threats = {"threats": [ball]} if ball.get("eps") else {}
    scratch = {"scratch": True} if fields.one("scratch") else {}
    return {"kind": "retrain", **_common(fields), "defenses": defenses, "training": training, **threats, **scratch}


def _certify(fields: Fields) -> dict[str, Any]:
    threats = [{"norm": fields.one("norm"), "eps": eps} for eps in _numbers(fields.one("eps"))]
    kind = fields.one("method")
    sigma = {"sigma": fields.one("sigma")} if kind == "smoothing" and fields.one("sigma") else {}
    return {"kind": "certify", **_common(fields), "threats": threats, "method": {"kind": kind, **sigma}}


def _craft(fields: Fields) -> dict[str, Any]:
    threat = {"norm": fields.one("norm"), "eps": fields.one("eps"), "targeted": bool(fields.one("targeted"))}
    return {"kind": "craft", **_common(fields), "threat": threat, "attack": {"kind": fields.one("attack")}}


KINDS = {
    "evaluate": Kind("/evaluate", _evaluate, {"norm": ["linf"], "eps": ["8/255"], "suite": ["quick"], "rows": ["1000"]}),
    "retrain": Kind("/retrain", _retrain, {"norm": ["linf"], "eps": ["8/255"], "defense": ["pgd"], "epochs": ["10"]}),
    "certify": Kind("/certify", _certify, {"norm": ["linf"], "eps": ["2/255"], "method": ["crown"], "rows": ["200"]}),
    "craft": Kind("/craft", _craft, {"norm": ["linf"], "eps": ["8/255"], "attack": ["pgd"], "rows": ["1000"]}),
}


def checked(kind: Kind, fields: Fields) -> tuple[AnyJob | None, Faults]:
    """The job that a form means, or what is wrong with it."""
    faults: Faults = {name: f"Choose a {what}." for name, what in (("model", "model"), ("data", "dataset")) if not fields.one(name)}
    if not fields.many("eps") and kind.path != "/retrain":
        faults["eps"] = "Say how far an input may be moved, such as 8/255."
    given = kind.build(fields)
    try:
        job = JOB.validate_python(given)
    except ValidationError as error:
        return None, {**of_validation(error, given, _PLACES), **faults}
    return (None, faults) if faults else (job, {})


def _show(page: Seen, kind: str, fields: Fields, faults: Faults) -> Response:
    asked = KINDS[kind]
    models = uploads.list_models(page.context.engine, page.project, limit=LISTED).items
    data = uploads.list_datasets(page.context.engine, page.project, limit=LISTED).items
    values = Fields(fields)
    for name, listed in (("model", models), ("data", data)):
        if listed and not faults:
            values.setdefault(name, [listed[0].id])
    values.setdefault("once", [secrets.token_urlsafe(12)])
    return page.show(
        kind,
        422 if faults else 200,
        models=models if kind in _ASKING else [model for model in models if model.format != "endpoint"],
        data=data,
        values=values,
        faults=faults,
        suites=PURPOSES,
        attacked=[("", "what suits the method"), *((name, name) for name in PURPOSES)],
        defenses=DEFENSE_INFOS,
        first=FIRST,
        attacks=ATTACK_INFOS,
        first_attacks=FIRST_ATTACKS,
        methods=CERTIFICATES,
        estimate=_estimate(page, asked, values) if models and data else "",
    )


def _start(page: Seen, kind: str) -> Response:
    asked = parsed(page.request.url.query)
    return _show(page, kind, Fields({**KINDS[kind].presets, **asked}), {})


def _submit(page: Seen, kind: str, fields: Fields) -> Response:
    job, faults = checked(KINDS[kind], fields)
    if job is None:
        return _show(page, kind, fields, faults)
    try:
        return page.go(f"/jobs/{_taken_on(page, job, _once(fields)).id}")
    except Problem as told:
        return _show(page, kind, fields, of_problem(told, places=_PLACES))
    except Unfit as error:
        return _show(page, kind, fields, of_problem(invalid(Fault("body", error.pointer, error.why)), places=_PLACES))


def _taken_on(page: Seen, job: AnyJob, key: str | None) -> JobInfo:
    try:
        return api.take_on(page.context, page.project, job, key)
    except KeyReused:
        # The form was sent, changed and sent again: that is another job.
        return api.take_on(page.context, page.project, job, None)


def _once(fields: Fields) -> str | None:
    """The same form sent twice makes one job."""
    once = fields.one("once")
    return f"page:{once}" if once.isascii() and once.isprintable() and 0 < len(once) <= 100 else None


def _estimate(page: Seen, kind: Kind, fields: Fields) -> str:
    job, _ = checked(kind, fields)
    if job is None:
        return ""
    try:
        model = uploads.get_model(page.context.engine, page.project, job.model).id
        data = uploads.get_dataset(page.context.engine, page.project, job.data).id
    except Missing:
        return ""
    return words(estimated(page.context, page.project, job, model, data))


def _offer(kind: str) -> None:
    """Serves the pages of one kind of job."""

    @router.get(f"/{kind}")
    def form(page: Seen) -> Response:
        """The form of a new job; what the address says is filled in."""
        return _start(page, kind)

    @router.post(f"/{kind}")
    def submit(page: Seen, fields: Filled) -> Response:
        """Submits the job."""
        return _submit(page, kind, fields)

    @router.get(f"/{kind}/estimate")
    def estimate(page: Seen) -> Response:
        """How long the job will take that the form means just now."""
        return page.show("estimate", estimate=_estimate(page, KINDS[kind], parsed(page.request.url.query)))


for _kind in KINDS:
    _offer(_kind)
