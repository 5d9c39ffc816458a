"""What was measured on a sample of rows, as plain numbers that rules judge later. A part is absent where nothing was looked at."""

from sparring.contract.base import Frozen


class Effort(Frozen):
    """What a part of the checks took."""

    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0


class Slopes(Frozen):
    """Gradients of the losses at the clean rows."""

    rows: int
    flat: int
    """Rows on which log-odds and DLR both have a gradient of exactly zero."""
    saturated: int
    """Rows on which the softmax cross-entropy has one in float32."""


class Scale(Frozen):
    """The scores on the clean rows."""

    rows: int
    spread: float
    """Median over the rows of largest score less smallest."""
    share: float
    """Median of the gap between the two largest scores, as a share of the largest score in size."""


class Whole(Frozen):
    """An ascent that may go anywhere the data may."""

    rows: int
    standing: int
    eps: float


class Course(Frozen):
    """One attack, watched step by step to its end, beside a single step."""

    attack: str
    rows: int
    steps: int
    last: int
    """Steps at the end over which the rise was taken."""
    standing: int
    rising: int
    """Of those standing: rows whose loss made more than 5 % of its whole rise in these last steps."""
    silent: int
    """Rows that were broken on the way, by the judge's word, and do not count as broken."""
    outside: int
    """Points looked at that lie outside the ball or the bounds, or are no numbers."""
    faulty: int
    """Rows on which the model answered NaN or infinity on the way."""
    disputed: int
    """Rows on whose last point the searched copy and the judge say different classes."""
    single: int
    """Rows that the single step broke."""
    several: int
    """Rows that the attack broke."""
    single_alone: int
    """Rows that the single step broke and the attack did not."""


class Longer(Frozen):
    """The same attack with twice the steps from another start, on rows that stood in the evaluation."""

    attack: str
    rows: int
    fell: int


class Tenfold(Frozen):
    """The log-odds climbed on the scores as they are, and on ten times the scores."""

    rows: int
    plain: int
    tenfold: int
    """Rows broken."""


class Tremor(Frozen):
    """The margin at random points of half the radius."""

    rows: int
    directions: int
    """In all."""
    change: float
    """Mean relative change of the margin, each cut off at 1."""


class Asked(Frozen):
    """A search that needs no gradient, on rows that stood in the evaluation."""

    rows: int
    queries: int
    fell: int


class OfModel(Frozen):
    """What holds under every threat."""

    modes: tuple[str, ...] = ()
    """Parts of the model that are in training mode."""
    changed: bool = False
    """The model is not what it was when it was loaded."""
    slopes: Slopes | None = None
    scale: Scale | None = None
    whole: Whole | None = None
    effort: Effort = Effort()


class UnderThreat(Frozen):
    """What holds under one threat."""

    course: Course | None = None
    longer: Longer | None = None
    tenfold: Tenfold | None = None
    tremor: Tremor | None = None
    asked: Asked | None = None
    effort: Effort = Effort()


class Seen(Frozen):
    """All of it."""

    model: OfModel = OfModel()
    threats: tuple[UnderThreat, ...] = ()
