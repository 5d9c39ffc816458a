"""Keeps processes alive: the dead are started again, ever more slowly if they die at once; when the supervisor dies, so do they."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

FIRST_DELAY, LONGEST_DELAY = 0.2, 5.0
"""Seconds before a dead child is started again: the first time, and at most."""
SETTLED = 10.0
"""Seconds alive after which a child counts as healthy again."""
GRACE = 5.0
"""Seconds from SIGTERM to SIGKILL."""
LOG_LIMIT = 8 << 20
"""Bytes of a log at which it becomes the old one; one old log is kept."""
TAIL = 2000
"""Bytes of a log that are told when a child does not start."""

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class StartError(RuntimeError):
    """Something the stack cannot do without did not start; the message says why."""


def _die_with(parent: int) -> Callable[[], None]:
    """For a child, before it becomes its program: the kernel kills it when the thread that forked it ends.

    The supervisor has one thread, which is what makes this right: with more, the death of the forking one would be enough.
    """

    def prepare() -> None:
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


class Child:
    """One process that is to run always. Its output goes to `{logs}/{name}.log`."""

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str], logs: Path, *, pass_fds: Sequence[int] = ()) -> None:
        self.name, self.log = name, logs / f"{name}.log"
        self._argv, self._env, self._pass_fds = list(argv), dict(env), tuple(pass_fds)
        self._process: subprocess.Popen[bytes] | None = None
        self._delay = FIRST_DELAY
        self._born = self._due = 0.0

    @property
    def pid(self) -> int | None:
        """Of the process that runs, or ran last."""
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts the process in a session of its own, so that Ctrl-C reaches the supervisor alone."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=self._pass_fds,
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()),
            )
        self._born, self._due = time.monotonic(), 0.0

    def tend(self) -> str | None:
        """Starts a dead process again when it is time to; says so when one has just been found dead."""
        if self._process is None or self.alive:
            return None
        now = time.monotonic()
        if self._due == 0.0:
            self._delay = FIRST_DELAY if now - self._born >= SETTLED else min(2 * self._delay, LONGEST_DELAY)
            self._due = now + self._delay
            code = self._process.returncode
            how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
            return f"{self.name} {how}; starting it again in {self._delay:.1f} s (log: {self.log})"
        if now >= self._due:
            self.start()
        return None

    def cap_log(self) -> None:
        """Moves the content of a log that has grown too long into the old log."""
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            # Copied and cut, not renamed: the process goes on writing to the file it has open.
            shutil.copyfile(self.log, self.log.with_suffix(".log.1"))
            os.truncate(self.log, 0)

    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_bytes()[-TAIL:].decode(errors="replace").strip() if self.log.exists() else ""

    def terminate(self) -> None:
        """Asks the process to end."""
        if self._process and self.alive:
            self._process.terminate()

    def end(self, deadline: float) -> None:
        """Waits for the end until the deadline (by the monotonic clock), then kills the process and all of its group."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class Supervisor:
    """Children in the order in which they were started; they are stopped in the opposite one."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.children: list[Child] = []

    def start(self, child: Child, ready: Callable[[], bool] = lambda: True, *, seconds: float = 100.0) -> None:
        """Starts a child and waits until it is ready. Raises StartError with the end of its log."""
        self.children.append(child)
        child.start()
        end = time.monotonic() + seconds
        while not ready():
            if not child.alive or time.monotonic() > end:
                why = f"was not ready after {seconds:.0f} s" if child.alive else "ended at once"
                raise StartError(f"{child.name} {why}; the end of its log ({child.log}):\n{child.last_words()}")
            time.sleep(0.02)

    def tend(self) -> None:
        """To be called several times a second."""
        for child in self.children:
            if news := child.tend():
                self._say(news)
            child.cap_log()

    def stop(self) -> None:
        """Ends all children: together, but for the first, on which the others lean."""
        for group in (self.children[1:], self.children[:1]):
            for child in reversed(group):
                child.terminate()
            deadline = time.monotonic() + GRACE
            for child in group:
                child.end(deadline)
