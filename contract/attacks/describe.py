"""An attack of the contract in words: what a command, a page or the API says of it and of its settings."""

from typing import Any, NamedTuple

from sparring.contract.attacks.base import AttackBase, Loss

LOSSES: dict[Loss, str] = {
    "ce": "cross-entropy, as the log-odds against the label: its slope does not vanish where the model is sure",
    "margin": "the largest other logit less the label's",
    "dlr": "the margin over the gap between the first and the third logit",
    "difference": "the logit of the class aimed at less the label's; without one the margin",
    "scaled": "cross-entropy of logits divided by the gap between their largest and their mean",
    "kl": "KL divergence from the clean prediction, in nats; asks for no label",
}
"""What each loss is, in words."""


class Setting(NamedTuple):
    """One setting of an attack."""

    name: str
    default: str
    """`not set` where the attack works it out for itself."""
    bounds: str
    """What may be given: `integer, 1 to 1000`, `one of true, predicted`."""
    meaning: str


def kind(attack: type[AttackBase]) -> str:
    """The name it is asked for: `pgd`."""
    name: str = attack.model_fields["kind"].default
    return name


def summary(attack: type[AttackBase]) -> str:
    """What it does, in one sentence or two."""
    return description(attack)[0]


def description(attack: type[AttackBase]) -> tuple[str, ...]:
    """What it does, in paragraphs: the summary first."""
    return tuple(" ".join(part.split()) for part in (attack.__doc__ or "").split("\n\n"))


def notes(attack: type[AttackBase]) -> tuple[str, ...]:
    """What is true of it beyond its settings, in sentences."""
    found = []
    if not attack.bounded:
        found.append("It looks for the smallest change: outside a cascade one run serves every eps of a norm, and gives the whole curve.")
    if not attack.targetable:
        found.append("It cannot be asked to reach a class.")
    return tuple(found)


def settings(attack: type[AttackBase]) -> tuple[Setting, ...]:
    """Every setting, in the order of the contract."""
    properties = attack.model_json_schema()["properties"]
    return tuple(
        Setting(name, _default(told.get("default")), _bounds(told), " ".join(told["description"].split()))
        for name, told in properties.items()
        if name != "kind"
    )


def _default(given: Any) -> str:
    if isinstance(given, dict):
        return str(given["kind"])
    if isinstance(given, list):
        return "+".join(given) or "none"
    return "not set" if given is None else str(given).lower() if isinstance(given, bool) else str(given)


def _bounds(told: dict[str, Any]) -> str:
    """A JSON Schema in words."""
    forms = [form for form in told.get("anyOf", [told]) if form.get("type") != "null"]
    if "oneOf" in told or "oneOf" in forms[0]:
        kinds = (told if "oneOf" in told else forms[0])["discriminator"]["mapping"]
        return f"one of {', '.join(kinds)}; its settings follow a dot, as in `attack.steps=50`"
    if forms[0].get("type") == "array":
        words = forms[0]["items"].get("enum")
        return f"of {', '.join(words)}: one, or several with + between them" if words else "ids or sha256, with + between them"
    if forms[0].get("type") == "boolean":
        return "true or false"
    if "enum" in forms[0]:
        return f"one of {', '.join(forms[0]['enum'])}"
    (number,) = (form for form in forms if form.get("type") in ("integer", "number"))
    ratio = any(form.get("type") == "string" for form in forms)
    what = "number or ratio" if ratio else number["type"]
    if ratio:  # its upper bound is only that of float32
        return f"{what} above 0" if "exclusiveMinimum" in number else f"{what}, 0 or more"
    if "exclusiveMinimum" in number:
        return f"{what} above {number['exclusiveMinimum']:g}, up to {number['maximum']:g}"
    return f"{what}, {number['minimum']:,} to {number['maximum']:,}"
