"""The pulse of an attempt: its signs of life, and its end when it is cancelled, out of time or no longer ours."""

import time

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from sparring.contract.states import Progress, Reason
from sparring.storage import attempts
from sparring.storage.attempts import Claim
from sparring.storage.jobs import CANCELLED
from sparring.storage.settings import Settings

log = structlog.get_logger(__name__)

_SHORTEST = 0.01
"""Seconds to wait at least."""


class Ended(Exception):
    """The attempt ends now, without success: for a `reason`, or for none when it is no longer ours and nothing may be written."""

    def __init__(self, reason: Reason | None) -> None:
        """Carry the reason."""
        super().__init__(reason.message if reason else "fenced")
        self.reason = reason


class Pulse:
    """Called from wherever the horse is busy, it beats as often as the settings say."""

    def __init__(self, settings: Settings, engine: Engine, claim: Claim) -> None:
        """The pulse of an attempt that has just been claimed; what the job has run in earlier attempts counts against its limit."""
        self._settings, self._engine, self._claim = settings, engine, claim
        self.progress: Progress | None = None
        """Where the job stands; told with the next beat."""
        self._leased = time.monotonic()
        self._deadline = self._leased + claim.job.timeout - claim.ran
        self._due = self._leased

    def __call__(self) -> None:
        """Beat if it is time to.

        Raises:
            Ended: the attempt is out of time, cancelled, or no longer ours.
        """
        now = time.monotonic()
        if now >= self._deadline:
            raise Ended(
                Reason(
                    code="timeout",
                    message=f"The job was not done within its limit of {self._claim.job.timeout} s since it was first started.",
                    hint="Retry it to go on where it stopped, or submit it with a higher `timeout` or fewer rows, steps or threats.",
                )
            )
        if now >= self._due:
            self.beat()

    def beat(self) -> None:
        """Beat, whether it is time to or not. Raises Ended when the attempt is cancelled or no longer ours."""
        now = time.monotonic()
        self._due = now + self._settings.beat
        claim = self._claim
        try:
            word = attempts.beat(self._engine, claim.job_id, claim.attempt, lease=self._settings.lease, progress=self.progress)
        except DBAPIError as error:
            log.warning("database away", error=str(error))
            if not self.holds():
                raise Ended(None) from error
            return
        self._leased = now
        if word != "go":
            raise Ended(CANCELLED if word == "cancel" else None)

    def rest(self) -> float:
        """Seconds one may wait before calling again."""
        return max(_SHORTEST, min(self._due, self._deadline) - time.monotonic())

    def holds(self) -> bool:
        """The lease has not run out, as far as can be told without the database."""
        return time.monotonic() - self._leased <= self._settings.lease
