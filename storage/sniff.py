"""What an upload is, told by its first bytes and its zip directory: nothing is opened, nothing is unpacked.

Of a state dict the pickle is looked through for the names it would call, without calling any.
"""

import pickletools
import struct
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from sparring.contract.specs import NPY_HEADER, DataFormat, DataSpec, ModelFormat
from sparring.storage.zips import Malformed, Rejected, Unsafe, directory, stream

__all__ = ["HEAD", "Malformed", "Rejected", "Undeclared", "Unsafe", "sniff_data", "sniff_model"]

HEAD = 512
"""Bytes of the file's beginning that a caller should hand over."""

_LEGACY = bytes.fromhex("8a0a6cfc9c46f9206aa850192e")
"""torch.save's magic number before torch 1.6, pickled, after the two bytes of the protocol."""

EXPORT = (
    "Export it as data: `sparring export module:factory weights.pt model.pt2 --shape 1,28,28`, "
    "or upload weights alone (safetensors, or torch.save(model.state_dict())) and name their architecture."
)
SAVE = "Write it with numpy.savez('data.npz', x=images, y=labels)."
BOUNDS = "Declare the bounds after scaling: 0,1 for images in [0, 1], none where any real number is legal."


class Undeclared(Rejected):
    """Numbers of which nobody has said what they mean."""

    code = "bounds_undeclared"


def sniff_model(head: bytes, path: Path) -> ModelFormat:
    """Format of an uploaded model. `head`: at least its first HEAD bytes, or the whole file if it is shorter.

    Raises Unsafe for formats that run code when loaded (pickled objects, TorchScript, Keras), Malformed for anything
    that is no model or is cut off. Whether a state dict is one, and whether a graph is sound, the loader finds out.
    """
    if not head:
        raise Malformed("the file is empty", "Upload the model file itself.")
    if head[:4] == b"PK\3\4":
        return _zipped_model(path)
    if head[:1] == b"\x80" and head[2 : 2 + len(_LEGACY)] == _LEGACY:
        return "state_dict"
    if _is_pickle(head):
        raise Unsafe("this is a pickle: opening it would run code", EXPORT)
    if head[:8] == b"\x89HDF\r\n\x1a\n":
        raise Unsafe("this is an HDF5 file (Keras): opening such models can run code", "Convert the model to PyTorch or ONNX.")
    if _is_safetensors(head, path):
        return "safetensors"
    if _is_onnx(head):
        return "onnx"
    if _is_text(head):
        raise Malformed("this is text (a web page or a script?), not a model", "Upload a .pt2, .safetensors, .pt or .onnx file.")
    raise Malformed("this is no model format Sparring knows", EXPORT)


def sniff_data(head: bytes, path: Path, spec: DataSpec) -> DataFormat:
    """Format of an uploaded dataset; `head` as for sniff_model, `spec` what is declared of it.

    Raises Unsafe for pickles, Malformed for anything else that is no .npz with a member x.npy and at most y.npy beside it, Undeclared
    where x needs bounds.
    """
    if not head:
        raise Malformed("the file is empty", SAVE)
    if _is_pickle(head):
        raise Unsafe("this is a pickle: opening it would run code", SAVE)
    if head[:6] == b"\x93NUMPY":
        raise Malformed("this is a single array (.npy)", f"A dataset is an .npz archive. {SAVE}")
    if head[:4] != b"PK\3\4":
        raise Malformed("this is no .npz archive", SAVE)
    members = directory(path)
    if "x.npy" not in members:
        raise Malformed(f"the archive has no array x; it holds {_names(set(members))}", SAVE)
    if extra := set(members) - {"x.npy", "y.npy"}:
        raise Malformed(f"the archive holds more than x and y: {_names(extra)}", SAVE)
    if any(info.compress_type not in (ZIP_STORED, ZIP_DEFLATED) for info in members.values()):
        raise Malformed("the archive is compressed in a way that numpy does not use", SAVE)
    with ZipFile(path) as archive:
        stored = spec.lacks_bounds(next(stream(archive, members["x.npy"]), b"")[:NPY_HEADER])
    if stored:
        raise Undeclared(f"x holds {stored} values, whose lowest and highest legal value are not known", BOUNDS)
    return "npz"


def _zipped_model(path: Path) -> ModelFormat:
    members = directory(path)
    inner = {str(PurePosixPath(*PurePosixPath(name).parts[1:])) for name in members}
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        raise Unsafe("this is a TorchScript archive: it runs code when loaded", EXPORT)
    if any(name.startswith("data/aotinductor/") or name.endswith(".so") for name in inner):
        raise Unsafe("the archive carries compiled code (AOTInductor)", EXPORT)
    if "archive_format" in inner and "models/model.json" in inner:
        kind: ModelFormat = "pt2"
    elif "data.pkl" in inner:
        kind = "state_dict"
    elif {"config.json", "metadata.json"} & set(members):
        raise Unsafe("this is a Keras archive: opening such models can run code", "Convert the model to PyTorch or ONNX.")
    else:
        raise Malformed(f"this zip archive is no model; it holds {_names(set(members))}", EXPORT)
    if any(info.compress_type != ZIP_STORED for info in members.values()):
        raise Malformed("the archive has been compressed", "Upload the file as torch wrote it; do not re-pack it.")
    if kind == "state_dict":
        _refuse_objects(path, next(info for name, info in members.items() if PurePosixPath(name).parts[1:] == ("data.pkl",)))
    return kind


def _is_pickle(head: bytes) -> bool:
    """Protocols 2 to 5; older ones are text, and no format starts like them."""
    return len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5


def _refuse_objects(path: Path, pickle: ZipInfo) -> None:
    """Raises Unsafe for a whole model, pickled: opening it would run the code of its classes."""
    with ZipFile(path) as archive:
        start = next(stream(archive, pickle), b"")
    named = next((name for name in _called(start) if not _of_tensors(name)), None)
    if named:
        raise Unsafe(f"this holds objects, not weights alone (one is a {ascii(named)[1:-1][:80]}): opening it would run code", EXPORT)


def _called(pickle: bytes) -> Iterator[str]:
    """Module and name of all that a pickle would look up and call, as far as it can be followed."""
    try:
        for opcode, argument, _ in pickletools.genops(pickle):
            if opcode.name == "GLOBAL":
                yield str(argument).replace(" ", ".")
    except ValueError:
        return  # damaged, or longer than was read: the loader finds out


def _of_tensors(name: str) -> bool:
    packages = ("torch", "collections", "builtins", "__builtin__", "_codecs", "numpy")
    return name.partition(".")[0] in packages and not name.startswith("torch.nn.modules.")


def _is_safetensors(head: bytes, path: Path) -> bool:
    """Eight bytes of length, then a JSON object of that length inside the file."""
    if len(head) < 9 or head[8:9] != b"{":
        return False
    (length,) = struct.unpack("<Q", head[:8])
    return bool(2 <= length <= path.stat().st_size - 8)


def _is_onnx(head: bytes) -> bool:
    """A protobuf ModelProto: field 1 (ir_version, 1..20), then field 5 (a number), or 2, 3, 4, 6, 7 or 8 (with a length)."""
    return len(head) > 4 and head[0] == 0x08 and 1 <= head[1] <= 20 and head[2] in (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42)


def _is_text(head: bytes) -> bool:
    return all(byte >= 32 or byte in b"\t\n\r\f" for byte in head)


def _names(members: set[str]) -> str:
    shown = ", ".join(ascii(name)[:60] for name in sorted(members)[:5])
    return f"{shown} and {len(members) - 5} more" if len(members) > 5 else shown
