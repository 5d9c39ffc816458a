"""What a runner inherits."""

import subprocess
import sys
from pathlib import Path

import pytest

from sparring.workers.spare import environment, strict

TELL = """
import ctypes, pathlib, torch
library = pathlib.Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
found = library.exists() and hasattr(ctypes.CDLL(str(library)), "mkl_serv_cbwr_get")
torch.rand(4, 4) @ torch.rand(4, 4)  # MKL reads its environment at the first product
print(hex(ctypes.CDLL(str(library)).mkl_serv_cbwr_get(-1)) if found else "none")
"""
BRANCHES = {"AVX2,STRICT": "0x1000a", "AVX512,STRICT": "0x1000c"}  # MKL_CBWR_STRICT | MKL_CBWR_AVX2, MKL_CBWR_AVX512
FLAGS = "flags : fpu avx2 avx512f avx512dq avx512cd avx512bw avx512vl"


def test_products_of_matrices_are_in_the_mode_that_is_asked_for() -> None:
    said = subprocess.run([sys.executable, "-P", "-c", TELL], env=environment(), capture_output=True, text=True, check=True).stdout.strip()
    if said == "none":
        pytest.skip("this torch was built without MKL")
    assert said == BRANCHES[environment()["MKL_CBWR"]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"vendor_id : GenuineIntel\n{FLAGS}\n", "AVX512,STRICT"),
        (f"vendor_id : AuthenticAMD\n{FLAGS}\n", "AVX2,STRICT"),
        (f"vendor_id : GenuineIntel\n{FLAGS.replace(' avx512vl', '')}\n", "AVX2,STRICT"),
        (None, "AVX2,STRICT"),
    ],
    ids=["intel", "amd", "an instruction missing", "no such file"],
)
def test_wider_instructions_are_asked_for_where_a_processor_has_them(text: str | None, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(text)
    assert strict(file) == expected
