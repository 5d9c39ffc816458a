"""onnxruntime on an uploaded graph, as a torch module: the judge of an ONNX model. It computes on the CPU, on one thread."""

import re
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor

from sparring.workers.errors import Refused

VERSION: str = onnxruntime.__version__
_MEMORY = ("failed to allocate memory", "bad_alloc", "bad allocation")
_ORIGIN = re.compile(r"\S*onnxruntime/\S+:\d+ [^(]*\([^)]*\)(?: const)? ")
"""Where in onnxruntime's source a message comes from."""


class Judge(torch.nn.Module):
    """Rows (B, …) in, the graph's first output (B, K) out. It has no gradient."""

    def __init__(self, data: bytes, source: str, target: str, batch: int | None) -> None:
        """Start a session. Must happen in the process that asks, after its fork.

        Args:
            data: the graph, serialised.
            source: name of its input.
            target: name of the output to ask for.
            batch: rows of every pass, where the graph is fixed to a number; the last pass is filled up.

        Raises:
            Refused: onnxruntime cannot run such a graph.
            MemoryError: there is not enough memory for it.
        """
        super().__init__()
        self.source, self.target, self.batch = source, target, batch
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.log_severity_level = 4  # errors come as exceptions
        try:
            self.session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common class
            raise _refusal(error) from error

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B, K) of x (B, …). Raises RuntimeError where the graph cannot be run on x."""
        return in_parts(self._ask, x, self.batch)

    def _ask(self, x: Tensor) -> Tensor:
        try:
            (scores,) = self.session.run([self.target], {self.source: x.detach().cpu().contiguous().numpy()})
        except Exception as error:  # onnxruntime's exceptions have no common class
            raise _memory(error) or RuntimeError(_told(error)) from error
        return torch.from_numpy(scores).to(x.device)


def in_parts(ask: Callable[[Tensor], Tensor], x: Tensor, batch: int | None) -> Tensor:
    """Scores (B, K) of x (B, …), asked `batch` rows at a time, the last pass filled up with its first row; None: all at once.

    Raises:
        Refused: a pass over `batch` rows does not answer as many.
    """
    if batch is None:
        return ask(x)
    answers = []
    for part in torch.split(x, batch):
        missing = batch - len(part)
        scores: Tensor = ask(torch.cat((part, part[:1].expand(missing, *part.shape[1:]))) if missing else part)
        if scores.shape[:1] != (batch,):
            message = f"a pass over {batch} rows answers a tensor of shape {tuple(scores.shape)}"
            hint = "A classifier returns logits of shape (rows, classes)."
            raise Refused("bad_model", message, hint=hint, detail="shape_mismatch")
        answers.append(scores[: len(part)])
    return torch.cat(answers)


@contextmanager
def bounded(most: int) -> Iterator[None]:
    """While it lasts this process may map at most `most` bytes more than it has: a graph can ask for any amount.

    Raises:
        Refused: `tensor_too_large`, in place of a MemoryError from within.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    wanted = [mapped + most, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_AS, (min(wanted), hard))
    try:
        yield
    except MemoryError as error:
        message = f"the model needs more than {most} bytes of memory for a few rows"
        raise Refused("bad_model", message, hint="Upload a smaller model, or smaller inputs.", detail="tensor_too_large") from error
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _refusal(error: Exception) -> Exception:
    if memory := _memory(error):
        return memory
    told = _told(error)
    hint = "Export it again with torch.onnx.export and an older opset, such as opset_version=17."
    message = f"onnxruntime {VERSION} cannot run the graph: {told}"
    if "opset" in told.lower():
        return Refused("unsupported", message, hint=hint, detail="opset_version")
    if type(error).__name__ == "NotImplemented":
        return Refused("unsupported", message, hint=hint, detail="unsupported_op")
    return Refused("bad_model", message, hint=hint, detail="graph_error")


def _memory(error: Exception) -> MemoryError | None:
    said = str(error).lower()
    return MemoryError(_told(error)) if isinstance(error, MemoryError) or any(word in said for word in _MEMORY) else None


def _told(error: Exception) -> str:
    """What onnxruntime says, in one line, without its own bookkeeping."""
    text = " ".join(str(error).split())
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    return _ORIGIN.sub("", text)[:300]
