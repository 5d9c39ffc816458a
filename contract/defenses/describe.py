"""A defense of the contract in words: what a command, a page or the API says of it and of its settings."""

from typing import Any

from sparring.contract.attacks.describe import Setting
from sparring.contract.base import Frozen
from sparring.contract.defenses.base import DefenseBase, Family

FAMILIES: dict[Family, str] = {
    "plain": "No defense: what the others are compared with.",
    "noise": "The model learns to cope with noise. Cheap; a first step, and no answer to an attacker.",
    "penalty": "What the model learns is held small or flat. Cheap to dear; helps against small changes.",
    "smoothness": "The prediction shall not change around the data. Needs no labels, so that data without them help.",
    "adversarial": "The model trains on attacks against itself. The most robust, and the dearest.",
    "clustering": "Classes are found, not taught.",
}
"""What each family is for."""


def kind(defense: type[DefenseBase]) -> str:
    """The name it is asked for: `trades`."""
    name: str = defense.model_fields["kind"].default
    return name


def description(defense: type[DefenseBase]) -> tuple[str, ...]:
    """What it does, in paragraphs: the summary first."""
    return tuple(" ".join(part.split()) for part in (defense.__doc__ or "").split("\n\n"))


def notes(defense: type[DefenseBase]) -> tuple[str, ...]:
    """What is true of it beyond its settings, in sentences."""
    passes = defense().gradients
    found = [
        f"Each row goes {passes} times forward and back through the model in an epoch."
        if passes > 1
        else "It costs what plain training costs."
    ]
    if not defense.labelled:
        found.append("It looks at no labels.")
    if defense.unlabelled:
        found.append("It learns from rows without labels too, where there are any.")
    return tuple(found)


def settings(model: type[Frozen]) -> tuple[Setting, ...]:
    """Every setting, in the order of the contract."""
    return tuple(
        Setting(name, _default(told.get("default")), _bounds(told), " ".join(told["description"].split()))
        for name, told in model.model_json_schema()["properties"].items()
        if name != "kind"
    )


def _default(given: Any) -> str:
    if isinstance(given, (list, tuple)):
        return ", ".join(map(str, given)) or "none"
    return "not set" if given is None else str(given).lower() if isinstance(given, bool) else str(given)


def _bounds(told: dict[str, Any]) -> str:
    """A JSON Schema in words."""
    if "enum" in told:
        return f"one of {', '.join(told['enum'])}"
    if told.get("type") == "array" and told["items"].get("type") == "integer":
        return f"integers, {told['items']['minimum']:,} to {told['items']['maximum']:,}"
    if told.get("type") == "boolean":
        return "true or false"
    if told.get("type") == "array" and "pattern" in told["items"]:
        return "ids or sha256, with + between them"
    if told.get("type") == "array":
        choices = told["items"].get("enum") or [name for each in told["items"]["anyOf"] for name in each.get("enum", [each.get("const")])]
        return f"any of {', '.join(choices)}"
    forms = told.get("anyOf", [told])
    (number,) = (form for form in forms if form.get("type") in ("integer", "number"))
    if any(form.get("type") == "string" for form in forms):  # its upper bound is only that of float32
        return "number or ratio above 0" if "exclusiveMinimum" in number else "number or ratio, 0 or more"
    if "exclusiveMinimum" in number:
        return f"number between {number['exclusiveMinimum']:g} and {number['exclusiveMaximum']:g}"
    if "exclusiveMaximum" in number and number["type"] == "number":
        return f"number, {number['minimum']:g} to below {number['exclusiveMaximum']:g}"
    most = number["maximum"] if "maximum" in number else number["exclusiveMaximum"] - 1
    return f"{number['type']}, {number['minimum']:,} to {most:,}"
