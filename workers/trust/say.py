"""Checks in words: what each looks for, what a flag means and what to do. Rules fill in what was seen."""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeVar

from pydantic import JsonValue

from sparring.contract.report import Check

P = TypeVar("P")
Evidence = dict[str, JsonValue]
Level = Literal["suspect", "invalid"]
_LOOK = "Look for rounding, argmax, detach or quantisation in the model; only attacks without gradients measure it."
_MASKED = "Trust the smaller number; try more steps, restarts and other losses, and look for quantisation, saturation or noise."


class Words(NamedTuple):
    """What is said of a check that found no sign, and what to do where it found one."""

    passed: str
    hint: str


WORDS: dict[str, Words] = {
    "gradient_absent": Words("A gradient reaches the input on every row looked at.", _LOOK),
    "saturated_scores": Words(
        "On few rows or none do the scores saturate a softmax in float32.",
        "Attacks of other tools that climb the plain cross-entropy stand still on such a model: their numbers are too high. Ours climb "
        "log-odds; divide the scores by a constant before you export the model, and compare.",
    ),
    "tiny_scores": Words(
        "The scores of the classes are far enough apart for float32.",
        "Slopes of such scores are mostly rounding: multiply the last layer by a constant, or remove a large common offset.",
    ),
    "probabilities": Words("The model answers scores, not probabilities.", "Export the model without its softmax."),
    "not_deterministic": Words(
        "The model gives the same answer whenever it is asked, over four passes.",
        "Ask for attacks that average over the randomness (samples=20).",
    ),
    "tied_scores": Words("No clean row has two highest scores that are equal.", "Rounded scores make a model look more robust than it is."),
    "chance_accuracy": Words("The clean accuracy is better than guessing.", "Check labels, bounds, mean, std and layout."),
    "mode_mismatch": Words(
        "No part of the model is in training mode.",
        "What was measured is not the model that is used: call model.eval() before you export it.",
    ),
    "model_changed": Words(
        "The weights and buffers are those that were uploaded, bit for bit, after the run as before it.",
        "Rows were measured on different models: export it without operators that write to its buffers.",
    ),
    "non_finite": Words("No answer was NaN or infinite.", "Look for divisions by zero in the model; an attack stops where it meets them."),
    "refused_successes": Words("The judge confirmed every success when it was asked again.", "The model may answer differently each time."),
    "proof_contradicted": Words("No row that was proved robust was broken.", "Run the job without skip_proved, and report this fault."),
    "certificate_contradicted": Words("No row that is certified was broken.", "More than a few such rows are a fault: please report it."),
    "unconstrained_failure": Words(
        "An ascent that may go wherever the data may breaks every row looked at.",
        "Some change of the input must break any row: where even this ascent fails, gradients lead nowhere. Look for what hides them.",
    ),
    "weaker_attacker_wins": Words("Attacks that know less broke no more than chance beyond the white-box attacks.", _MASKED),
    "single_step_wins": Words(
        "A single step is no stronger than many.",
        "Many small steps lose their way where one large one does not, so gradients near the data mislead: train against several steps, "
        "and trust the attacks without gradients.",
    ),
    "not_converged": Words(
        "Twice the steps from another start change the number by no more than chance.",
        "The number is too high: take more steps and restarts, or the suite standard or thorough.",
    ),
    "silent_success": Words(
        "Every row that was broken on the way counts as broken.",
        "An attack passed by a success and did not keep it: the number is too high. Please report this fault.",
    ),
    "outside_ball": Words("Every point that was kept lies in ball and bounds.", "Do not use this number, and report this fault."),
    "search_disagrees": Words(
        "The copy that is searched and the judge agree where the attack ended, on nearly every row.",
        "The attack climbs another model than the one that is judged: look at what was done to the search copy (provenance), "
        "use precision exact, or export the model in float32.",
    ),
    "unstable_loss": Words(
        "The margin changes smoothly about the rows.",
        "A slope says little of such a loss a small step away: trust attacks without gradients, and look for quantisation or noise.",
    ),
    "scale_matters": Words(
        "The attack does not care for the size of the scores, or others that do not were run.",
        "Add attacks whose loss has no unit (loss=margin, dlr or scaled), or take the suite standard.",
    ),
    "few_classes": Words("There are classes enough for the loss of the attacks, or it is replaced by the margin.", ""),
}
"""Every check by its code, in the order they are told."""

COSTLY = "It would have taken more than the share of the attacks' own work that checks may take."
RANDOM = "The model answers at random: what two runs of this would differ in is chance."
NOTHING = "No row was right before any attack."
FLAT = "At eps 0 nothing may change."
NO_ASCENT = "The ascents that are watched are not defined in this norm."
ANSWERS = "The model is known by its answers alone."
MORE = "Whether more queries would break more rows was not tried."
NO_SLOPE = "No attack here uses a gradient."


def passed(code: str, evidence: Evidence | None = None, message: str = "") -> Check:
    """No sign was found."""
    return Check(code=code, state="passed", message=message or WORDS[code].passed, evidence=evidence or {})


def flagged(code: str, level: Level, message: str, evidence: Evidence | None = None, hint: str = "") -> Check:
    """A sign was found."""
    return Check(code=code, state="flagged", level=level, message=message, hint=hint or WORDS[code].hint, evidence=evidence or {})


def left_out(code: str, why: str) -> Check:
    """It was not done, though it could have been."""
    return Check(code=code, state="left_out", message=why)


def not_applicable(code: str, why: str) -> Check:
    """It has no meaning here."""
    return Check(code=code, state="not_applicable", message=why)


class Absent(NamedTuple):
    """Why there may be no measurement."""

    away: str = ""
    """It has no meaning here, and why; empty where it has."""
    why: str = COSTLY
    """Else why it was left out."""


def held(code: str, absent: Absent, part: P | None, rule: Callable[[P], Check]) -> Check:
    """What a rule makes of a measurement, or why there is none."""
    if absent.away:
        return not_applicable(code, absent.away)
    return left_out(code, absent.why) if part is None else rule(part)
