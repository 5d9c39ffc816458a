"""The warm spare: a runner started ahead, with torch imported, that waits on a socket for one order.

It is an exec'd interpreter with a clean environment: it holds no credentials and opens no connection. Whoever holds the other
end of the socket owns it; when that end closes, the runner ends.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "PYTHONDONTWRITEBYTECODE")
_WIDE = frozenset({"GenuineIntel", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})
"""What MKL wants of a processor for the wider instructions; on those of others it promises nothing."""


def strict(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """MKL's widest instructions whose sums hang neither on where a row lies nor on how many there are (its strict mode)."""
    try:
        words = frozenset(cpuinfo.read_text().split())
    except OSError:
        words = frozenset()
    return "AVX512,STRICT" if words >= _WIDE else "AVX2,STRICT"


ARITHMETIC = {"MKL_CBWR": strict(), "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
"""Makes a row's results independent of its place in a tile; recorded in every report."""
_SPEED = {
    # One thread per process: rows are spread over processes instead. The allocator keeps its memory, which matters most of all.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "67108864",
    # Asking whether there is a GPU must not start CUDA before the row process is forked.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}


@dataclass
class Runner:
    """A runner process and our end of its socket."""

    process: subprocess.Popen[bytes]
    wire: socket.socket

    @property
    def pid(self) -> int:
        """Also the id of its process group."""
        return self.process.pid

    def kill(self) -> None:
        """End it now, with every process it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wire.close()
        self.process.wait()  # returns at once in a horse, whose child it is not


def environment() -> dict[str, str]:
    """What a runner inherits: no credentials, no addresses."""
    return {name: os.environ[name] for name in _KEPT if name in os.environ} | ARITHMETIC | _SPEED


class Stable:
    """Keeps one spare runner ready, and reaps those that have ended. Used in a worker parent, which never computes."""

    def __init__(self, device: str, processes: int) -> None:
        """`device` is `auto`, `cpu` or `cuda:N`; `processes` the row processes of a CPU runner."""
        self._command = [sys.executable, "-P", "-m", "sparring.workers.runner", "--device", device, "--processes", str(processes)]
        self._started: list[subprocess.Popen[bytes]] = []
        self._spare: Runner | None = None

    def ready(self) -> Runner:
        """The spare; a new one if there is none or it has died."""
        self._started = [process for process in self._started if process.poll() is None]
        if self._spare and self._spare.process not in self._started:
            self._spare.wire.close()
            self._spare = None
        self._spare = self._spare or self._start()
        return self._spare

    def handed_over(self) -> None:
        """The spare belongs to a horse now: let go of its socket and start the next one."""
        if self._spare:
            self._spare.wire.close()
        self._spare = None
        self.ready()

    def _start(self) -> Runner:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [*self._command, "--wire", str(theirs.fileno())],
                env=environment(),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )
        self._started.append(process)
        return Runner(process, ours)
