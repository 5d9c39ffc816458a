"""One defense from the first batch to the files: trained, examined after each epoch, checkpointed, handed out at its best epoch.

Whatever is decided here is a function of the rows and the seeds, and what is known so far is part of every checkpoint: a training that
is cut off at any point and taken up again ends in the same weights.
"""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sparring.attacks.search import search_copy
from sparring.contract.base import Frozen
from sparring.contract.defenses import EnsembleTraining
from sparring.contract.report import Finding, Score
from sparring.contract.retrained import End, Epoch
from sparring.contract.runner import TrainingOrder
from sparring.contract.threat import Threat
from sparring.defenses.state import State
from sparring.defenses.training import Progress, hand_out, train
from sparring.workers.bench import Facts
from sparring.workers.errors import Refused
from sparring.workers.retraining import checkpoints, formats
from sparring.workers.retraining.exam import MOST, Exam
from sparring.workers.retraining.rows import lesson, opened, other, split
from sparring.workers.retraining.trainee import trainee
from sparring.workers.surrogates import uploaded

_EVERY = 8
"""Batches between two looks at the clock."""
_SECONDS, _SHARE = 2.0, 20.0
"""Between two checkpoints at least so many seconds, and so many times what writing one takes."""
_SHOWN = 40
_MOST = 2000
"""Epochs whose marks are kept; of longer trainings every second one, every fourth …"""
_RESULT, _STEM = "trained.json", "model"


class Train(NamedTuple):
    """Task: one defense, its checkpoints and its files kept in `folder`. Answered by Trained on the way, and Saved."""

    order: TrainingOrder
    at: int
    """Which of the job's defenses."""
    facts: Facts
    """Of the model as it was uploaded."""
    threats: tuple[Threat, ...]
    folder: Path
    plan: str


class Trained(NamedTuple):
    """How far a training is."""

    at: int
    done: float
    """Share that is behind it."""
    curve: tuple[Epoch, ...]
    """Some of its epochs, the last among them."""
    taken_over: bool = False
    """That was done by an earlier attempt."""


class Result(Frozen):
    """What is known of a training that is over."""

    plan: str
    end: End
    reason: str
    epochs: int
    epoch: int
    """Whose weights are handed out."""
    marks: tuple[int, int]
    """Validation rows that are right under PGD, and clean, at that epoch; -1 where none are examined."""
    curve: tuple[Epoch, ...]
    seconds: float
    resumed: int
    notes: tuple[str, ...]
    files: dict[str, str]
    findings: tuple[Finding, ...]


class Diary(Frozen):
    """What a training has shown so far; part of its checkpoints."""

    curve: tuple[Epoch, ...] = ()
    best: str = ""
    """Digest of the state of the best epoch."""
    marks: tuple[int, int] = (-1, -1)
    epoch: int = 0
    """Which epoch that was."""
    risen: int = 0
    """The newest epoch that was better under PGD than every one before it."""
    last: int = 0
    """The newest epoch that was examined."""
    seconds: float = 0.0

    def examined(self, epoch: Epoch) -> "Diary":
        """With one more epoch; it is the best if no epoch before it has better marks."""
        curve = (*self.curve, epoch)
        curve = curve if len(curve) <= _MOST else curve[::-2][::-1]
        diary = self.model_copy(update={"curve": curve, "last": epoch.epoch})
        if epoch.robust is None or epoch.clean is None:
            return diary
        marks = epoch.robust.count, epoch.clean.count
        if marks < self.marks:
            return diary
        risen = epoch.epoch if marks[0] > self.marks[0] else self.risen
        return diary.model_copy(update={"marks": marks, "epoch": epoch.epoch, "risen": risen})


def recall(folder: Path, plan: str) -> Result | None:
    """What is known of a training that is over; None where it is not, or belongs to another plan."""
    try:
        result = Result.model_validate_json((folder / _RESULT).read_bytes())
    except (OSError, ValueError):
        return None
    whole = all((folder / name).is_file() for name in result.files.values())
    return result if result.plan == plan and whole else None


def coach(task: Train, device: torch.device, tell: Callable[[Trained], None]) -> None:
    """Do the task.

    Raises:
        Refused: the model, the data and the defense do not go together.
    """
    task.folder.mkdir(parents=True, exist_ok=True)
    if recall(task.folder, task.plan):
        return
    result = _Session(task, device, tell).run()
    temporary = task.folder / "trained.tmp"
    temporary.write_text(result.model_dump_json())
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(task.folder / _RESULT)


class _Session:
    """A training under way."""

    def __init__(self, task: Train, device: torch.device, tell: Callable[[Trained], None]) -> None:
        job = task.order.job
        self.task, self.tell, self.settings, self.defense = task, tell, job.training, job.defenses[task.at]
        data = opened(task.order)
        parts = split(job, data)
        self.data = lesson(data, parts.training)
        spare = other(task.order, "unlabelled", data) if self.defense.unlabelled else None
        self.spare = None if spare is None else lesson(spare, labelled=False)
        self.trainee = trainee(task.order, data, task.facts, device)
        named = dict.fromkeys(self.defense.models) if isinstance(self.defense, EnsembleTraining) else ()
        self.rivals = [task.order.others[ref] for ref in named]
        self.surrogates = [search_copy(uploaded(each, data, device, task.facts.classes))[0] for each in self.rivals]
        self.exam: Exam | None = None
        if len(parts.validation):
            held = lesson(data, parts.validation[:MOST])
            assert held.labels is not None
            x = held.rows(torch.arange(held.size)).to(device)
            self.exam = Exam(x, held.labels.to(device), task.threats, data.bounds, job.seed)
        self.diary, self.resumed = Diary(), 0
        self.best: State | None = None
        self.began = time.process_time()
        self.due = time.monotonic() + _SECONDS

    def run(self) -> Result:
        """Train to the end, hand out and write the files."""
        end: End = "finished"
        reason = ""
        last: Progress | None = None
        for last in self._steps():
            if last.end:
                end, reason = last.end, last.reason
            elif self._waited_enough():
                end = "stopped_early"
                reason = f"no better robust accuracy on the validation rows in {self.task.order.job.patience} epochs"
                break
        assert last is not None
        if self.best is not None and (self.diary.epoch < last.epoch or end == "stopped_early"):
            model, best = self.trainee.model, self.best
            hand_out(model, self.defense, self.data, best, self.settings, unlabelled=self.spare, surrogates=self.surrogates)
        files, findings = self._files()
        return Result(
            plan=self.task.plan,
            end=end,
            reason=reason,
            epochs=last.epoch,
            epoch=self.diary.epoch if self.best is not None else last.epoch,
            marks=self.diary.marks,
            curve=self.diary.curve,
            seconds=self._seconds(),
            resumed=self.resumed,
            notes=(*last.notes, *(f"surrogate {each.info.name}, sha256 {each.info.sha256}" for each in self.rivals)),
            files=files,
            findings=findings,
        )

    def _files(self) -> tuple[dict[str, str], tuple[Finding, ...]]:
        folder = self.task.folder
        with TemporaryDirectory(dir=folder, suffix=".tmp") as made:  # renamed one by one: another attempt may share what lies here
            files, findings = formats.write(self.task.order, self.trainee.weights(), Path(made) / _STEM, self.trainee.row)
            for name in files.values():
                (Path(made) / name).replace(folder / name)
        return files, findings

    def _steps(self) -> Iterator[Progress]:
        """The training, each epoch examined and checkpoints written on the way."""
        state = self._resume()
        try:
            course = train(
                self.trainee.model,
                self.defense,
                self.data,
                self.settings,
                unlabelled=self.spare,
                surrogates=self.surrogates,
                state=state,
                every=_EVERY,
            )
        except ValueError as error:
            hint = "Choose another defense for this model and these data; `sparring defenses list` tells them."
            raise Refused("unsupported", f"{self.defense.kind}: {error}", hint=hint, detail="defense_unfit") from error
        if state is not None:
            behind = state.facts["epoch"] / self.settings.epochs
            self.tell(Trained(self.task.at, behind, shown(self.diary.curve), taken_over=True))
        for progress in course:
            if progress.epoch > self.diary.last:
                self._examine(progress)
            if not progress.end and time.monotonic() > self.due:
                self._checkpoint(progress.state())
            self.tell(Trained(self.task.at, progress.done, shown(self.diary.curve)))
            yield progress

    def _examine(self, progress: Progress) -> None:
        """Mark the weights that would be handed out now."""
        state, seen, marks = progress.state(), progress.seen, None
        if self.exam is not None:
            with averaged(self.trainee.model, {} if progress.end else state.part("average"), state.facts["averaged"]):
                marks = self.exam.sit(self.trainee.model)
        epoch = Epoch(
            epoch=progress.epoch,
            loss=progress.loss if math.isfinite(progress.loss) else None,
            clean_training=Score(count=seen.clean, total=seen.total) if seen else None,
            robust_training=Score(count=seen.robust, total=seen.total) if seen else None,
            clean=Score(count=marks.clean, total=marks.total) if marks else None,
            single=Score(count=marks.single, total=marks.total) if marks else None,
            robust=Score(count=marks.robust, total=marks.total) if marks else None,
        )
        self.diary = self.diary.examined(epoch)
        if self.diary.epoch == progress.epoch:
            self.best = state
            self.diary = self.diary.model_copy(update={"best": ""})

    def _waited_enough(self) -> bool:
        patience = self.task.order.job.patience
        return patience is not None and self.diary.last - self.diary.risen >= patience

    def _checkpoint(self, state: State) -> None:
        began, folder = time.monotonic(), self.task.folder
        if self.best is not None and not self.diary.best:
            digest = checkpoints.save(folder, int(self.best.facts["updates"]), self.best, "best")
            self.diary = self.diary.model_copy(update={"best": digest})
        diary = self.diary.model_copy(update={"seconds": self._seconds()})
        facts: dict[str, Any] = {**state.facts, "plan": self.task.plan, "diary": diary.model_dump(mode="json")}
        checkpoints.save(folder, int(state.facts["updates"]), State(state.tensors, facts))
        self.due = time.monotonic() + max(_SECONDS, _SHARE * (time.monotonic() - began))

    def _resume(self) -> State | None:
        """The newest sound state of this very training, with what was known by then."""
        for checkpoint in checkpoints.found(self.task.folder):
            state = checkpoints.load(checkpoint)
            if state is None or state.facts.get("plan") != self.task.plan:
                continue
            diary = Diary.model_validate(state.facts["diary"])
            best = checkpoints.named(self.task.folder, diary.best) if diary.best else None
            if best is None and diary.epoch:
                continue
            self.diary, self.best, self.resumed = diary, best, int(state.facts["epoch"])
            return state
        return None

    def _seconds(self) -> float:
        return self.diary.seconds + time.process_time() - self.began


@contextmanager
def averaged(model: nn.Module, means: dict[str, Tensor], count: int) -> Iterator[None]:
    """Meanwhile the model has the means of its weights, if there are any."""
    weights = {name: weight.data for name, weight in model.named_parameters() if count and name in means}
    kept = {name: weight.clone() for name, weight in weights.items()}
    for name, weight in weights.items():
        weight.copy_(means[name])
    try:
        yield
    finally:
        for name, weight in weights.items():
            weight.copy_(kept[name])


def shown(curve: tuple[Epoch, ...]) -> tuple[Epoch, ...]:
    """At most forty of the epochs, spread evenly, the last among them."""
    step = -(-len(curve) // _SHOWN)
    return curve[::-1][:: step or 1][::-1]
