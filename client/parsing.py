"""What a user writes on the command line, as objects of the contract; every error names what is wrong and what is known."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from sparring.contract.attacks import ATTACKS, AttackSpec, describe
from sparring.contract.certificates import CERTIFICATES, AnyCertificate
from sparring.contract.corruptions import CORRUPTIONS, CorruptionName
from sparring.contract.defenses import DEFENSES, AnyDefense, EnsembleTraining, Training
from sparring.contract.defenses import describe as defenses
from sparring.contract.endpoints import AnyEndpoint, Budget, HttpEndpoint, OpenInference
from sparring.contract.refs import Ref
from sparring.contract.threat import Norm, Threat
from sparring.errors import UsageProblem
from sparring.paths import absent, check_readable, kind_of

M = TypeVar("M", bound=BaseModel)

KINDS = {describe.kind(attack): attack for attack in ATTACKS}
"""Attacks by the name they are asked for."""
ALIASES = {
    "apgd-ce": "apgd:loss=ce",
    "apgd-dlr": "apgd:loss=dlr",
    "apgd-t": "apgd:loss=dlr,targets=9",
    "fab-t": "fab:targets=9",
    "ufgsm": "fgsm:labels=predicted",
}
"""Short names of attacks with some settings; more settings may follow them, as in `apgd-t:steps=50`."""
CERTIFICATE_KINDS = {kind.model_fields["kind"].default: kind for kind in CERTIFICATES}
"""What certifies, by name."""
DEFENSE_KINDS = {defenses.kind(defense): defense for defense in DEFENSES}
"""Defenses by the name they are asked for."""
DEFENSE_ALIASES = {
    "fgsm-at": "fgsm",
    "fast-at": "fast",
    "pgd-at": "pgd",
    "free-at": "free",
    "l1": "weight_penalty:l1=1e-4,l2=0",
    "l2": "weight_penalty:l2=1e-3",
}
"""Short names of defenses with some settings; more settings may follow them."""
_REF = re.compile(get_args(Ref)[1].metadata[0].pattern)


def _message(fault: Any, *, shown: bool) -> str:
    given = fault["input"]
    said = f" (given {given!r})" if shown and isinstance(given, (str, int, float)) and fault["type"] != "extra_forbidden" else ""
    return str(fault["msg"]).removeprefix("Value error, ").replace("Input should be", "must be") + said


def made(kind: type[M], what: str, **given: Any) -> M:
    """An object of the contract; UsageProblem with every fault, led by `what`, or by the option's name where that is empty."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        faults = []
        for fault in error.errors():
            where = ".".join(str(part) for part in fault["loc"][:1])
            # `--eps eight` has named the setting, and what was given, already.
            fresh = not what.startswith(f"--{where} ")
            led = where if what else f"--{where.replace('_', '-')}"
            faults.append(f"{led}: {_message(fault, shown=True)}" if where and fresh else _message(fault, shown=fresh))
        raise UsageProblem("; ".join(f"{what}{': ' if what else ''}{fault}" for fault in faults)) from None


def unknown_attack(name: str, where: str) -> UsageProblem:
    """What is raised for a name that no attack has; `where` leads the message."""
    known = f"Known are {', '.join(KINDS)}; and for short {', '.join(ALIASES)}"
    return UsageProblem(f"{where}there is no attack {name!r}", known)


def attack(text: str) -> AttackSpec:
    """`pgd:steps=20,alpha=2/255` as an attack; settings left out stand at their defaults.

    Raises:
        UsageProblem: names the setting that is wrong, and lists those there are.
    """
    name, colon, rest = text.partition(":")
    kind, _, preset = ALIASES.get(name, name).partition(":")
    if kind not in KINDS:
        raise unknown_attack(name, f"--attack {text}: ")
    spec = KINDS[kind]
    known = [field for field in spec.model_fields if field != "kind"]
    hint = f"{name} knows {', '.join(known)}; see `sparring attacks show {name}`"
    given: dict[str, str] = {}
    for part in rest.split(",") if colon else ():
        setting, equals, value = (piece.strip() for piece in part.partition("="))
        whole, _, inner = setting.partition(".")
        if not equals:
            raise UsageProblem(f"--attack {text}: {part.strip()!r} is not of the form setting=value", hint)
        if whole not in known or (inner and whole != "attack"):
            raise UsageProblem(f"--attack {text}: {name} has no setting {setting!r}", hint)
        if setting in given:
            raise UsageProblem(f"--attack {text}: {setting} is given twice")
        given[setting] = value
    preset_settings = dict(part.split("=") for part in preset.split(",") if part)
    made_of: AttackSpec = made(spec, f"--attack {text}", **_nested(spec, preset_settings | given))
    return made_of


def _nested(spec: type[BaseModel], given: dict[str, str]) -> dict[str, Any]:
    """`attack=pgd`, `attack.steps=50` as the settings of an attack within."""
    own: dict[str, Any] = {name: value for name, value in given.items() if not name.startswith("attack")}
    inner = {name.partition(".")[2]: value for name, value in given.items() if name.startswith("attack.")}
    if inner or "attack" in given:
        kind = given.get("attack") or spec.model_fields["attack"].default.kind
        own["attack"] = {"kind": kind} | inner
    return own


def _settings(option: str, text: str, rest: str, kind: type[BaseModel], name: str, hint: str) -> dict[str, Any]:
    """`beta=3,steps=10` as settings of `kind`; several words of one setting stand with + between them."""
    known = {field: about.default for field, about in kind.model_fields.items() if field != "kind"}
    given: dict[str, Any] = {}
    for part in rest.split(",") if rest else ():
        setting, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise UsageProblem(f"{option} {text}: {part.strip()!r} is not of the form setting=value", hint)
        if setting not in known:
            raise UsageProblem(f"{option} {text}: {name} has no setting {setting!r}", hint)
        if setting in given:
            raise UsageProblem(f"{option} {text}: {setting} is given twice")
        given[setting] = value.split("+") if isinstance(known[setting], tuple) else value
    return given


def unknown_defense(name: str, where: str) -> UsageProblem:
    """What is raised for a name that no defense has; `where` leads the message."""
    known = f"Known are {', '.join(DEFENSE_KINDS)}; and for short {', '.join(DEFENSE_ALIASES)}"
    return UsageProblem(f"{where}there is no defense {name!r}", known)


def defense(text: str) -> AnyDefense:
    """`pgd:eps=8/255,steps=10` as a defense; settings left out stand at their defaults.

    Raises:
        UsageProblem: names the setting that is wrong, and lists those there are.
    """
    name, _, rest = text.partition(":")
    kind, _, preset = DEFENSE_ALIASES.get(name, name).partition(":")
    if kind not in DEFENSE_KINDS:
        raise unknown_defense(name, f"--defense {text}: ")
    spec = DEFENSE_KINDS[kind]
    known = [field for field in spec.model_fields if field != "kind"]
    hint = f"{name} knows {', '.join(known) or 'none'}; see `sparring defenses show {name}`"
    given = dict(part.split("=") for part in preset.split(",") if part)
    found: AnyDefense = made(spec, f"--defense {text}", **given | _settings("--defense", text, rest, spec, name, hint))
    return found


def defenses_against(written: Sequence[str], surrogates: Sequence[str]) -> tuple[AnyDefense, ...]:
    """Each `--defense`, every ensemble among them against these uploaded models too.

    Raises:
        UsageProblem: as for one of them; or there are surrogates, and nothing to use them.
    """
    found = tuple(map(defense, written))
    if surrogates and not any(isinstance(each, EnsembleTraining) for each in found):
        raise UsageProblem("--surrogate: none of the defenses moves rows against surrogates", "Leave it out, or ask for ensemble")
    return tuple(
        made(EnsembleTraining, "--surrogate", **each.model_dump(exclude={"kind"}) | {"models": (*each.models, *surrogates)})
        if isinstance(each, EnsembleTraining) and surrogates
        else each
        for each in found
    )


def certificate(text: str) -> AnyCertificate:
    """`crown`, or `smoothing:sigma=0.5`, as what certifies; UsageProblem for one there is not, or a wrong setting."""
    name, _, rest = text.partition(":")
    if name not in CERTIFICATE_KINDS:
        raise UsageProblem(f"--method {text}: nothing certifies by {name!r}", f"Known are {', '.join(CERTIFICATE_KINDS)}")
    kind = CERTIFICATE_KINDS[name]
    known = [field for field in kind.model_fields if field != "kind"]
    hint = f"{name} knows {', '.join(known) or 'none'}"
    found: AnyCertificate = made(kind, f"--method {text}", **_settings("--method", text, rest, kind, name, hint))
    return found


def training(text: str, **given: Any) -> Training:
    """`optimizer=sgd,rate=0.05` as the settings of a training, beside those that have options of their own."""
    hint = f"Known are {', '.join(Training.model_fields)}"
    said = _settings("--training", text, text, Training, "the training", hint)
    if both := given.keys() & said.keys():
        raise UsageProblem(f"--training {text}: {min(both)} is given twice", f"Leave it to --{min(both)}")
    return made(Training, f"--training {text}" if text else "", **said, **given)


def threat(text: str) -> Threat:
    """`linf:8/255` or `linf:8/255:targeted` as a threat."""
    norm, _, rest = text.partition(":")
    eps, _, aim = rest.partition(":")
    if not eps or aim not in ("", "targeted"):
        raise UsageProblem(f"--threat {text} is not of the form norm:eps or norm:eps:targeted", "For example --threat linf:8/255")
    return made(Threat, f"--threat {text}", norm=norm, eps=eps, targeted=bool(aim))


def threats(norm: str, eps: Sequence[str], written: Sequence[str], targeted: bool) -> tuple[Threat, ...]:
    """The threats of a job: one for each `--eps` in `--norm`, then each `--threat`."""
    if norm not in get_args(Norm):
        raise UsageProblem(f"--norm {norm}: there is no such norm", f"Known are {', '.join(get_args(Norm))}")
    found = [made(Threat, f"--eps {radius}", norm=norm, eps=radius) for radius in eps] + [threat(text) for text in written]
    if not found:
        raise UsageProblem("How far may the attacker go? No --eps is given", "For example --norm linf --eps 8/255, or --threat linf:8/255")
    return tuple(t.model_copy(update={"targeted": t.targeted or targeted}) for t in found)


def corruptions(given: Sequence[str]) -> tuple[CorruptionName, ...]:
    """Each `--corruption` by name; `all` is every one there is."""
    if "all" in given:
        return CORRUPTIONS
    return tuple(checked(CorruptionName, name, "--corruption") for name in given)


def spec(kind: type[M], **given: str | float | None) -> M | None:
    """What flags declare about an upload; None when they declare nothing."""
    declared = {name: value for name, value in given.items() if value is not None}
    if ("mean" in declared) != ("std" in declared):
        one, other = ("mean", "std") if "mean" in declared else ("std", "mean")
        raise UsageProblem(f"--{one} is given without --{other}", "Give both; --mean 0 subtracts nothing, --std 1 divides by nothing")
    return made(kind, "", **declared) if declared else None


def endpoint(common: Mapping[str, Any], json_alone: Mapping[str, Any], v2_alone: Mapping[str, Any], headers: Sequence[str]) -> AnyEndpoint:
    """An endpoint as flags describe it; those that are None stand at their defaults.

    Args:
        common: settings of any endpoint.
        json_alone: settings of one with JSON of its own.
        v2_alone: settings of one that speaks the open inference protocol, which it does if they name a model.
        headers: each `--header`.

    Raises:
        UsageProblem: one of them is wrong, or says nothing about this kind.
    """
    kind: Any = HttpEndpoint if v2_alone["model"] is None else OpenInference
    own, other = (json_alone, v2_alone) if kind is HttpEndpoint else (v2_alone, json_alone)
    if wrong := [name for name, value in other.items() if value is not None]:
        which = "needs --v2" if kind is HttpEndpoint else "cannot stand beside --v2"
        hint = "--request and --response say how JSON of its own is read; --v2 and --input are for the protocol"
        raise UsageProblem(f"--{wrong[0]} {which}", hint)
    given = {name: value for name, value in {**common, **own}.items() if value is not None}
    if "shape" in given:
        given["shape"] = given["shape"].split(",")
    if "request" in given:
        try:
            given["request"] = json.loads(given["request"])
        except ValueError as error:
            raise UsageProblem(f"--request is not JSON: {error}", """Write it as '{"inputs": "{rows}"}'""") from None
    pairs = [header.partition("=") for header in headers]
    if bad := [name for name, equals, _ in pairs if not equals]:
        raise UsageProblem(f"--header {bad[0]} is not of the form name=value", "For example --header Authorization=secret:TOKEN")
    found: AnyEndpoint = made(kind, "", **given, headers={name.strip(): value.strip() for name, _, value in pairs})
    return found


def budget(asked: int | None, sent: int | None) -> Budget | None:
    """What `--asked` and `--sent` allow; None when neither is given."""
    given = {name: value for name, value in (("asked", asked), ("sent", sent)) if value is not None}
    return made(Budget, "", **given) if given else None


def reference(text: str, prefix: str) -> str | None:
    """The id or sha256 that `text` is; None when it is the name of a file there is.

    Args:
        text: what stands for the model or the dataset on the command line.
        prefix: of ids of its kind, `mdl` or `dat`.

    Raises:
        UsageProblem: neither, or an id of the other kind.
    """
    file = Path(text)
    found = kind_of(file)
    if found == "file":
        check_readable(file)
        return None
    if not _REF.match(text):
        raise UsageProblem(f"{text} {absent(found)}", f"Give a file, an id ({prefix}_…) or a sha256")
    if text[3:4] == "_" and not text.startswith(prefix):
        raise UsageProblem(f"{text} is not the id of a {'model' if prefix == 'mdl' else 'dataset'}", "The order is MODEL DATA")
    return text


def checked(kind: Any, given: str, what: str) -> Any:
    """A single value of a closed set, such as a state; UsageProblem lists the set."""
    try:
        return TypeAdapter(kind).validate_python(given)
    except ValidationError:
        raise UsageProblem(f"{what} {given}: there is no such thing", f"Known are {', '.join(get_args(kind))}") from None
