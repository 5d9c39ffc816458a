"""The one loop that trains.

A defense is a recipe: rows are moved, a loss is taken, the weights step. What differs from one to the next lies in those three;
what is the same for all, the order of rows, schedules, averages, checkpoints, lies here. Every draw is a function of the seed and of
how far the training has come, so that one that was interrupted goes on to the same weights, bit for bit, on the same kind of device
with the same number of threads.
"""

import math
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from sparring.attacks import random
from sparring.contract.defenses import AnyDefense, EnsembleTraining, Training
from sparring.contract.quantity import value
from sparring.contract.threat import Threat
from sparring.defenses.averages import Average
from sparring.defenses.awp import at_worst
from sparring.defenses.catalogue import recipe
from sparring.defenses.data import Batch, Data, facts, orders
from sparring.defenses.recipe import Carry, Turn
from sparring.defenses.state import State, copied, of_optimizer, to_optimizer
from sparring.defenses.transforms import changed
from sparring.defenses.views import Views
from sparring.defenses.watch import Seen, Watch

_EPOCH, _AUGMENT, _SPARE = 71, 72, 73  # streams of randomness
_REFRESHING = 100
"""Batches from which running statistics are taken anew for averaged weights."""
End = Literal["", "finished", "diverged", "overfitting"]


class Progress(NamedTuple):
    """How far a training has come."""

    epoch: int
    """Epochs behind us."""
    epochs: int
    done: float
    """Share of all steps of the weights that are behind us."""
    loss: float
    """Mean of the updates since the epoch began, in nats."""
    seen: Seen | None
    """Rows that are right at the end of an epoch, clean and under attack."""
    threat: Threat
    """What they are attacked by."""
    seconds_left: float
    """If it goes on as it has since it was begun or resumed."""
    end: End
    """Why the training is over; empty while it is not. At the end the model is in evaluation mode, its weights those to hand out."""
    reason: str
    """The same in words."""
    notes: tuple[str, ...]
    """What a reader of the results must know of how it was trained."""
    state: Callable[[], State]
    """What the training can be resumed from; to be taken before the next progress is asked for."""


class DivergedError(ArithmeticError):
    """The loss is not finite any more."""


def train(
    model: nn.Module,
    spec: AnyDefense,
    data: Data,
    settings: Training | None = None,
    *,
    unlabelled: Data | None = None,
    surrogates: Sequence[nn.Module] = (),
    state: State | None = None,
    every: int | None = None,
) -> Iterator[Progress]:
    """Train a model in place; tells its progress after each epoch, and every so many steps within.

    Args:
        model: maps (B, …) float32 to logits (B, K); `train()` and `eval()` must put all of it in that mode.
        spec: the defense; its eps and the like are in units of the data.
        data: rows with labels.
        settings: how to train.
        unlabelled: rows without labels, for defenses that learn from them.
        surrogates: models like it, in evaluation mode and on its device, for defenses that move rows against them; they stay as they are.
        state: where an earlier training, of the same everything, was interrupted.
        every: batches between two progresses within an epoch; none unless given.

    Raises:
        ValueError: model, data and settings do not go together, saying why; at once, or with the first batch.
    """
    course = _Course(model, spec, data, settings or Training(), unlabelled, surrogates)
    if state is not None:
        course.resume(state)
    return _trained(course, every)


def hand_out(
    model: nn.Module,
    spec: AnyDefense,
    data: Data,
    state: State,
    settings: Training | None = None,
    *,
    unlabelled: Data | None = None,
    surrogates: Sequence[nn.Module] = (),
) -> None:
    """Leave a model, in evaluation mode, with the weights that a training would hand out if it ended at `state`.

    Raises:
        ValueError: the state is that of another training.
    """
    course = _Course(model, spec, data, settings or Training(), unlabelled, surrogates)
    course.resume(state)
    course.over(state, "finished", "")


def _trained(course: "_Course", every: int | None) -> Iterator[Progress]:
    good = course.snapshot()
    try:
        while course.epoch < course.epochs:
            for _ in course.turns():
                if every and course.step % every == 0 and course.step < course.order.steps:
                    yield course.progress()
            fallen = course.close_epoch()
            snapshot = course.snapshot()
            if not snapshot.finite:
                raise DivergedError
            if fallen:
                yield course.over(good, "overfitting", "accuracy under PGD fell: the model had learnt to fool the single step alone")
                return
            good = snapshot
            if course.epoch < course.epochs:
                yield course.progress()
    except DivergedError:
        yield course.over(good, "diverged", "the loss is not finite any more: lower the rate, or set clip")
        return
    yield course.over(good, "finished", "all epochs are done")


class _Course:
    """A training under way."""

    def __init__(
        self, model: nn.Module, spec: AnyDefense, data: Data, settings: Training, unlabelled: Data | None, surrogates: Sequence[nn.Module]
    ) -> None:
        _check(spec, data, unlabelled, surrogates)
        self.settings, self.data, self.spare = settings, data, unlabelled
        known = facts(data)
        self.recipe = recipe(spec, known, data, surrogates)
        first = data.rows(torch.arange(min(2, data.size)))
        _channels_last(model, first)
        self.views = Views(model)
        _check_labels(self.views, data, first)
        self.optimizer = _optimizer(model, settings)
        self.average = Average(model, settings)
        self.watch = Watch(spec, data, known, settings.monitor, settings.seed)
        self.order, self.spare_order = orders(data, unlabelled, settings.batch, settings.unlabelled_batch, settings.seed)
        self.epochs = -(-settings.epochs // self.recipe.replays)
        self.total = self.epochs * self.order.steps * self.recipe.replays
        self.epoch = self.step = self.updates = 0
        self.losses: tuple[float, int] = (0.0, 0)
        self.best = 0.0
        self.seen: Seen | None = None
        self.carry: Carry = {}
        counts = {"rows": data.size, "unlabelled": unlabelled.size if unlabelled else 0, "surrogates": len(surrogates)}
        self._identity = {"defense": spec.model_dump(mode="json"), "training": settings.model_dump(mode="json"), **counts}
        self._began, self._before = time.monotonic(), 0

    def turns(self) -> Iterator[None]:
        """The rest of the epoch, batch by batch."""
        if not self.step:
            self.losses = (0.0, 0)
        while self.step < self.order.steps:
            with torch.random.fork_rng(_devices(self.views)), torch.enable_grad():
                batch = self._batch(self.epoch, self.step)
                self._reseed()
                moved = self.recipe.perturb(self.views, batch)
                turn = Turn(self.views, batch, self.recipe.objective, self._descend)
                self.carry = self.recipe.update(turn, moved, self.carry)
            self.step += 1
            yield

    def _batch(self, epoch: int, step: int) -> Batch:
        settings, device = self.settings, self.views.device
        index = self.order.at(epoch, step)
        key = _keys(self.data.size, settings.seed, _EPOCH, epoch)[index].to(device)
        x = self._augmented(self.data, index, key)
        labels = torch.zeros_like(index) if self.data.labels is None else self.data.labels[index]
        batch = Batch(x, labels.to(device), key, index.to(device), self.data.bounds, done=self.updates / self.total)
        if self.spare is None or self.spare_order is None:
            return batch
        index = self.spare_order.at(epoch, step)
        key = random.fork(_keys(self.spare.size, settings.seed, _SPARE, epoch)[index], step).to(device)
        return batch._replace(spare=self._augmented(self.spare, index, key), spare_key=key)

    def _augmented(self, data: Data, index: Tensor, key: Tensor) -> Tensor:
        x = data.rows(index).to(self.views.device)
        return changed(self.settings.augment, x, random.fork(key, _AUGMENT), data.bounds) if self.settings.augment else x

    def _reseed(self) -> None:
        self.views.reseed(zlib.crc32(f"{self.settings.seed} {self.updates}".encode()))

    def _descend(self, compute: Callable[[], Tensor]) -> None:
        """One step of the weights."""
        settings, done = self.settings, self.updates / self.total
        self.optimizer.zero_grad()
        if settings.awp and done >= settings.awp_after:
            loss = float(at_worst(self.views, value(settings.awp), compute, self.optimizer.zero_grad))
        else:
            loss = float(compute())
        if not math.isfinite(loss):
            raise DivergedError
        if settings.clip is not None:
            nn.utils.clip_grad_norm_(self.views.model.parameters(), value(settings.clip))
        rate = settings.peak * _share(settings, (self.updates + 0.5) / self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        if self.recipe.after is not None:
            with torch.no_grad():
                self.recipe.after(self.views, rate)
        self.average.stepped()
        self.losses = self.losses[0] + loss, self.losses[1] + 1
        self.updates += 1
        self._reseed()

    def close_epoch(self) -> bool:
        """Count the epoch, and look how the model does. True is the guard's alarm: accuracy under PGD is far below its best."""
        self.epoch, self.step = self.epoch + 1, 0
        self.average.turned(self.updates / self.total)
        self._look()
        if self.seen is None or not self.recipe.guard:
            return False
        robust = self.seen.robust / self.seen.total
        fallen = robust < self.best - self.recipe.guard
        self.best = max(self.best, robust)
        return fallen

    def _look(self) -> None:
        with torch.random.fork_rng(_devices(self.views)):
            self.seen = self.watch.look(self.views)

    def progress(self, end: End = "", reason: str = "", state: State | None = None) -> Progress:
        """How far it has come."""
        total, count = self.losses
        seen, self.seen = self.seen, None
        pace = (time.monotonic() - self._began) / max(self.updates - self._before, 1)
        left = 0.0 if end else pace * (self.total - self.updates)
        loss = total / count if count else math.nan
        done = self.updates / self.total
        take = self.snapshot if state is None else lambda: state
        return Progress(self.epoch, self.epochs, done, loss, seen, self.watch.threat, left, end, reason, self.recipe.notes, take)

    def over(self, good: State, end: End, reason: str) -> Progress:
        """Leave the model with the weights to hand out: those of the last good state, or their average."""
        losses = self.losses
        self.resume(good)
        self.losses = losses
        averaged = self.average.deliver()
        if averaged and self.settings.average == "swa" and any(True for _ in self.views.model.buffers()):
            self._refresh()
        if averaged or end != "finished" or self.seen is None:
            self._look()
        self.optimizer.zero_grad()
        self.views.model.eval()
        _contiguous(self.views.model)
        return self.progress(end, reason, good)

    def _refresh(self) -> None:
        """Let the running statistics follow averaged weights: passes that teach nothing else."""
        with torch.random.fork_rng(_devices(self.views)):
            for step in range(min(_REFRESHING, self.order.steps)):
                moved = self.recipe.perturb(self.views, self._batch(0, step))
                with torch.no_grad():
                    self.views.live(moved)

    def snapshot(self) -> State:
        """All there is to go on from."""
        tensors = copied("model", self.views.model.state_dict()) | copied("optimizer", of_optimizer(self.optimizer))
        tensors |= copied("average", self.average.tensors) | copied("carry", self.carry)
        told = {"epoch": self.epoch, "step": self.step, "updates": self.updates, "best": self.best, "losses": self.losses}
        return State(tensors, {**told, "averaged": self.average.count, "of": self._identity})

    def resume(self, state: State) -> None:
        """Go on from a snapshot. Raises ValueError where it is that of another training."""
        told = state.facts
        if told["of"] != self._identity:
            different = [name for name, own in self._identity.items() if told["of"].get(name) != own]
            raise ValueError(f"the state is that of another training: {', '.join(different)} differ")
        self.views.model.load_state_dict(state.part("model"))
        to_optimizer(self.optimizer, state.part("optimizer"))
        self.average.restore(state.part("average"), told["averaged"])
        self.carry = {name: tensor.to(self.views.device) for name, tensor in state.part("carry").items()}
        self.epoch, self.step, self.updates = told["epoch"], told["step"], told["updates"]
        self.best, self.losses = told["best"], (told["losses"][0], told["losses"][1])
        self._before, self._began = self.updates, time.monotonic()


@lru_cache(maxsize=2)  # all updates of an epoch ask for the same ones
def _keys(size: int, seed: int, stream: int, epoch: int) -> Tensor:
    """Keys (N,) of all rows in one epoch."""
    return random.fork(random.fork(random.keys(seed, torch.arange(size)), stream), epoch)


def _check(spec: AnyDefense, data: Data, unlabelled: Data | None, surrogates: Sequence[nn.Module]) -> None:
    if spec.labelled and data.labels is None:
        raise ValueError(f"{spec.kind} learns from labels, and the data have none: give labelled data")
    if unlabelled is not None and not spec.unlabelled:
        raise ValueError(f"{spec.kind} cannot learn from rows without labels: leave them out, or choose vat or lds")
    if surrogates and not isinstance(spec, EnsembleTraining):
        raise ValueError(f"{spec.kind} moves no rows against surrogates: leave them out, or choose ensemble")
    if not data.size or (unlabelled is not None and not unlabelled.size):
        raise ValueError("the data have no rows")


def _check_labels(views: Views, data: Data, x: Tensor) -> None:
    if data.labels is None:
        return
    with torch.random.fork_rng(_devices(views)), torch.no_grad():
        classes = views.still(x.to(views.device)).shape[1]
    low, high = int(data.labels.min()), int(data.labels.max())
    if low < 0 or high >= classes:
        raise ValueError(f"labels go from {low} to {high}, but the model has {classes} classes, 0 to {classes - 1}")


def _optimizer(model: nn.Module, settings: Training) -> torch.optim.Optimizer:
    decay, weights = value(settings.decay), model.parameters()
    if settings.optimizer == "sgd":
        return torch.optim.SGD(weights, lr=settings.peak, momentum=settings.momentum, weight_decay=decay, fused=True)
    make = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return make(weights, lr=settings.peak, weight_decay=decay, fused=True)


def _share(settings: Training, done: float) -> float:
    """The learning rate as a share of its highest."""
    match settings.schedule:
        case "constant":
            return 1.0
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        case "linear":
            return 1 - done
        case "cyclic":
            return 1 - abs(2 * done - 1)
        case "steps":
            return 1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01


def _devices(views: Views) -> list[torch.device]:
    return [views.device] if views.device.type == "cuda" else []


def _channels_last(model: nn.Module, x: Tensor) -> None:
    """Weights of convolutions in the order of memory that is quickest, where the model works with it."""
    if not any(weight.dim() == 4 for weight in model.parameters()):
        return
    device = next(model.parameters()).device
    _laid_out(model, torch.channels_last)
    try:
        with torch.no_grad():
            model.eval()(x.to(device))
    except RuntimeError:  # the model looks at memory as if it were in plain order
        _contiguous(model)


def _contiguous(model: nn.Module) -> None:
    _laid_out(model, torch.contiguous_format)


def _laid_out(model: nn.Module, order: torch.memory_format) -> None:
    for weight in model.parameters():
        if weight.dim() == 4:
            weight.data = weight.data.to(memory_format=order)  # `contiguous` leaves the strides of a single channel as they are
