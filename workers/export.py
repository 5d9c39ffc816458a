"""`python -P -m sparring.workers.export module:factory weights out.pt2 --shape 1,28,28`: a user's own model as a .pt2.

Runs in the user's environment, where their code is at home; what it writes is read back with the reader of the workers and
compared with the original. One line of JSON on standard output; exit code 0 done, 2 the model cannot be exported, 4 bad usage.
"""

import argparse
import importlib
import json
import os
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import torch

from sparring.storage.sniff import HEAD, Rejected, sniff_model
from sparring.workers.errors import Refused
from sparring.workers.pt2.check import Summary, check
from sparring.workers.pt2.strip import strip
from sparring.workers.weights import HINT, State, read_safetensors, read_state_dict

DONE, FAILED, USAGE = 0, 2, 4
BATCHES = (1, 3)
"""Numbers of rows on which original and copy are compared."""
TOLERANCE = 1e-5


class Failure(Exception):
    """Why there is no export: exit code, what was wrong, what to do."""

    def __init__(self, code: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Failure(USAGE, message, self.format_usage().strip())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    try:
        summary, path = _run(arguments)
    except Failure as failure:
        print(f"{failure.message}\n{failure.hint}".strip(), file=sys.stderr)
        print(json.dumps({"ok": False, "message": failure.message, "hint": failure.hint}))
        return failure.code
    told = {
        "ok": True,
        "path": str(path),
        "sha256": summary.sha256,
        "operators": summary.operators,
        "parameters": summary.parameters,
        "input_shape": summary.input_shape,
        "classes": summary.classes,
        "findings": [finding.model_dump() for finding in summary.findings],
    }
    print(json.dumps(told))
    return DONE


def _run(arguments: Sequence[str] | None) -> tuple[Summary, Path]:
    parser = _Parser(prog="sparring export", description="Write a model of yours as a .pt2 that Sparring reads.")
    parser.add_argument("factory", help="module:function (or module:Class) that makes the model when called without arguments")
    parser.add_argument("weights", type=Path, help="safetensors or state dict; - if the factory loads them itself")
    parser.add_argument("out", type=Path, help="the .pt2 to write")
    parser.add_argument("--shape", required=True, help="shape of one input row, such as 1,28,28")
    options = parser.parse_args(arguments)
    shape = _shape(options.shape)
    model = _model(_factory(options.factory))
    if str(options.weights) != "-":
        _load(model, options.weights)
    model.cpu().eval()
    with tempfile.TemporaryDirectory() as folder:
        exported, stripped = Path(folder) / "exported.pt2", Path(folder) / "model.pt2"
        _export(model, shape, exported)
        strip(exported, stripped)
        try:
            summary = check(stripped)
        except Refused as refused:
            raise Failure(FAILED, refused.reason.message, refused.reason.hint) from refused
        _compare(model, summary.module, shape)
        _deliver(stripped, options.out)
    return summary, options.out.resolve()


def _shape(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isascii() and part.strip().isdigit() and int(part) for part in parts):
        raise Failure(USAGE, f"--shape {text!r} is no shape", "Give the sizes of one row without the batch, such as 1,28,28.")
    return tuple(int(part) for part in parts)


def _factory(name: str) -> Callable[[], object]:
    """The user's own callable, found from the folder they stand in."""
    module_name, separator, attribute = name.partition(":")
    if not separator or not module_name or not attribute:
        raise Failure(USAGE, f"{name!r} names no factory", "Write it as module:function, such as mymodels.nets:make_cnn.")
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _users(f"{module_name} cannot be imported", error) from error
        raise Failure(USAGE, f"cannot find {name}: {error}", "Run the command in the folder that holds the module.") from error
    except (Exception, SystemExit) as error:  # it is the user's code: it may raise anything
        raise _users(f"{module_name} cannot be imported", error) from error
    try:
        found = getattr(module, attribute)
    except AttributeError as error:
        raise Failure(USAGE, f"cannot find {name}: {error}", f"Name a function or class of {module_name}.") from error
    if not callable(found):
        raise Failure(USAGE, f"{name} is no function", "It is called without arguments and returns the model.")
    factory: Callable[[], object] = found
    return factory


def _model(factory: Callable[[], object]) -> torch.nn.Module:
    try:
        model = factory()
    except (Exception, SystemExit) as error:  # it is the user's code: it may raise anything
        raise _users("the factory failed", error, "It is called without arguments.") from error
    if not isinstance(model, torch.nn.Module):
        raise Failure(USAGE, f"the factory returned {type(model).__name__}, not a torch.nn.Module")
    return model


def _users(what: str, error: BaseException, more: str = "") -> Failure:
    """A fault in the user's own code, with its place there."""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    hint = f"Correct it there and run the command again. {more}".strip()
    return Failure(FAILED, f"{what}: {type(error).__name__}: {text} ({_place(error)})", hint)


def _place(error: BaseException) -> str:
    """File and line: of a syntax error its own, else the innermost that belongs to no library."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    libraries = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
    frames = traceback.extract_tb(error.__traceback__)
    own = [each for each in frames if each.filename != __file__ and not each.filename.startswith((*libraries, "<"))]
    return f"{own[-1].filename}, line {own[-1].lineno}" if own else "its place is not known"


def _load(model: torch.nn.Module, path: Path) -> None:
    try:
        with path.open("rb") as file:
            format = sniff_model(file.read(HEAD), path)
        readers: dict[str, Callable[[Path], State]] = {"safetensors": read_safetensors, "state_dict": read_state_dict}
        if format not in readers:
            raise Failure(USAGE, f"{path} holds a graph ({format}), not weights", "A graph is uploaded as it is.")
        model.load_state_dict(readers[format](path), strict=True)
    except OSError as error:
        raise Failure(USAGE, f"cannot read {path}: {error.strerror}") from error
    except Rejected as rejected:
        raise Failure(FAILED, f"{path}: {rejected.message}", HINT) from rejected  # its own hint leads to this very command
    except Refused as refused:
        raise Failure(FAILED, f"{path}: {refused.reason.message}", refused.reason.hint) from refused
    except RuntimeError as error:
        raise Failure(FAILED, f"the weights do not fit the model: {error}", "Choose the factory they were trained with.") from error


def _export(model: torch.nn.Module, shape: tuple[int, ...], path: Path) -> None:
    example = torch.rand(BATCHES[-1], *shape)
    batch = torch.export.Dim("batch", min=1, max=4096)
    try:
        model(example)
        torch.export.save(torch.export.export(model, (example,), dynamic_shapes=({0: batch},), strict=False), path)
    except Exception as error:  # the user's code runs in here too
        reason = f"{type(error).__name__}: {str(error).split(chr(10) * 2)[0][:1000]}"
        hint = "The forward pass must not depend on the values of its input, nor on a fixed number of rows; check --shape."
        raise Failure(FAILED, f"torch.export cannot export the model: {reason}", hint) from error


def _compare(model: torch.nn.Module, copy: torch.nn.Module, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    for rows in BATCHES:
        x = torch.rand((rows, *shape), generator=generator)
        with torch.no_grad():
            difference = float((model(x) - copy(x)).abs().max())
        if not difference <= TOLERANCE:
            hint = "Its answers must be the same on every pass: no random numbers, no state."
            raise Failure(FAILED, f"the exported model differs from the original by {difference:.3g} on {rows} rows", hint)


def _deliver(source: Path, target: Path) -> None:
    """Copy to the folder of the target, then rename: the target is whole or not there."""
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}-", delete=False) as file:
            file.write(source.read_bytes())
        Path(file.name).chmod(0o644)
        Path(file.name).rename(target)
    except OSError as error:
        raise Failure(USAGE, f"cannot write {target}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
