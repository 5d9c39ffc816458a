"""The gate held against models of which the answer is known: a gate that was never seen to fail proves nothing."""

import json
import math
import struct
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from sparring import local, show
from sparring.contract.verdict import Baselines, Verdict
from sparring.errors import SparringError
from sparring.gate.policy import read
from sparring.gate.run import Wanted, decide

EXPECTED = {"robust": 0, "weak": 1, "empty": 3}
"""Exit codes by fixture."""
_ROWS, _FEATURES, _SLOPE = 64, 4, 5.0
_LOW, _HIGH = 0.25, 0.75
_BOUNDARY = {"robust": 0.5, "weak": 0.3, "empty": 0.5}
"""Where each model changes its mind. Rows lie at 0.25 and 0.75, and eps is 0.1: half of them are out of reach of one, not of the other."""
_POLICY = """\
version: 1
model: {path: model.safetensors, arch: mlp}
data: {path: data.npz, bounds: [0, 1]}
threats:
  reach: {norm: linf, eps: 0.1}
rules:
  - {id: clean, metric: clean, min: 0.9}
  - {id: robust, metric: robust, threat: reach, min: 0.9}
"""


def run() -> None:
    """Run the gate on each fixture and print what came of it. SparringError unless every exit code is the expected one."""
    with local.service():
        verdicts = {name: _verdict(name) for name in EXPECTED}
    rows = [(name, code, verdicts[name].exit_code, verdicts[name].word) for name, code in EXPECTED.items()]
    wrong = [name for name, expected, found, _ in rows if expected != found]
    show.tell(f"SELFTEST {'FAILED' if wrong else 'PASSED'}: {len(rows) - len(wrong)} of {len(rows)} fixtures end as they must")
    show.table("", ("fixture", "expected", "found", "meaning"), rows, ("expected", "found"))
    if wrong:
        why = "; ".join(f"{name}: {verdicts[name].reason or verdicts[name].word}" for name in wrong)
        raise SparringError(f"The gate does not decide as it must ({why})", "Do not rely on it here; `sparring doctor` looks over the rest")


def _verdict(fixture: str) -> Verdict:
    with tempfile.TemporaryDirectory(prefix="sparring-selftest-") as folder:
        place = Path(folder)
        write(place, fixture)
        return decide(Wanted(read(place / "gate.yaml"), keep=False), Baselines())


def write(folder: Path, fixture: str) -> None:
    """Put the files of a fixture into a folder: gate.yaml, model.safetensors, data.npz."""
    rows = 0 if fixture == "empty" else _ROWS
    labels = [row % 2 for row in range(rows)]
    x = [(_LOW, _HIGH)[label] for label in labels for _ in range(_FEATURES)]
    tilt = _FEATURES * _SLOPE * _BOUNDARY[fixture]
    weights = {"0.weight": ((2, _FEATURES), [-_SLOPE] * _FEATURES + [_SLOPE] * _FEATURES), "0.bias": ((2,), [tilt, -tilt])}
    (folder / "gate.yaml").write_text(_POLICY)
    (folder / "model.safetensors").write_bytes(_safetensors(weights))
    with zipfile.ZipFile(folder / "data.npz", "w") as archive:
        archive.writestr("x.npy", _npy("<f4", (rows, _FEATURES), struct.pack(f"<{len(x)}f", *x)))
        archive.writestr("y.npy", _npy("<i8", (rows,), struct.pack(f"<{rows}q", *labels)))


def _safetensors(tensors: Mapping[str, tuple[tuple[int, ...], Sequence[float]]]) -> bytes:
    header, body = {}, b""
    for name, (shape, values) in tensors.items():
        assert len(values) == math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(body), len(body) + 4 * len(values)]}
        body += struct.pack(f"<{len(values)}f", *values)
    said = json.dumps(header).encode()
    return struct.pack("<Q", len(said)) + said + body


def _npy(kind: str, shape: tuple[int, ...], body: bytes) -> bytes:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body
