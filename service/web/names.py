"""Models, datasets and jobs by the names a reader knows them by."""

from collections.abc import Callable
from typing import NamedTuple

from sparring.contract.attacks import names
from sparring.contract.resources import DatasetInfo, JobInfo, ModelInfo
from sparring.contract.verdict import WORDS
from sparring.reports.text import threat_text
from sparring.service.context import Context
from sparring.storage import uploads
from sparring.storage.errors import Missing

DOING = {"evaluate": "Evaluate", "certify": "Certify", "retrain": "Retrain", "craft": "Craft examples for"}
STATES = {"succeeded": "good", "failed": "bad", "timed_out": "bad", "cancelled": "still", "queued": "still", "running": "busy"}
"""How a state is coloured; it always stands there in words too."""
VERDICTS = {code: (word, {0: "good", 1: "bad"}.get(code, "warn")) for code, word in WORDS.items()}
"""Exit codes of gates: their words, and how they are coloured."""


class Named(NamedTuple):
    """Something that was uploaded; without an id where it is gone."""

    name: str
    id: str = ""


class Titled(NamedTuple):
    """A job as a line of a list."""

    job: JobInfo
    doing: str
    model: Named
    data: Named

    @property
    def words(self) -> str:
        """`Evaluate mine on test`."""
        return f"{self.doing} {self.model.name} on {self.data.name}"

    @property
    def how(self) -> str:
        """`quick: linf 8/255`, or with what it is trained."""
        asked = self.job.job
        if asked.kind == "retrain":
            return ", ".join(asked.names)
        if asked.kind == "certify":
            attacks: str | tuple[str, ...] = asked.method.kind
        else:
            attacks = (asked.suite or names(asked.attacks)) if asked.kind == "evaluate" else asked.attack.kind
        listed = attacks if isinstance(attacks, str) else ", ".join(attacks)
        return f"{listed}: {', '.join(threat_text(threat) for threat in asked.threats)}"

    @property
    def share(self) -> int | None:
        """How far it is, in percent; None where that is not known."""
        progress = self.job.progress
        return min(100, 100 * progress.done // progress.total) if progress.total else None


class Names:
    """Looks each reference up once."""

    def __init__(self, context: Context, project: str) -> None:
        self._context, self._project = context, project
        self._known: dict[tuple[bool, str], Named] = {}

    def _find(self, model: bool, ref: str) -> Named:
        find: Callable[..., ModelInfo | DatasetInfo] = uploads.get_model if model else uploads.get_dataset
        if (model, ref) not in self._known:
            try:
                found = find(self._context.engine, self._project, ref)
                self._known[model, ref] = Named(found.name, found.id)
            except Missing:
                self._known[model, ref] = Named(f"{ref[:16]}… (deleted)")
        return self._known[model, ref]

    def model(self, ref: str) -> Named:
        """A model by what a job calls it."""
        return self._find(True, ref)

    def data(self, ref: str) -> Named:
        """A dataset by what a job calls it."""
        return self._find(False, ref)

    def job(self, job: JobInfo) -> Titled:
        """A job with the names of what it is about."""
        return Titled(job, DOING[job.job.kind], self.model(job.job.model), self.data(job.job.data))
