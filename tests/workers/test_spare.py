"""What a runner inherits."""

import ctypes
from pathlib import Path

import pytest
import torch

_STRICT = 0x10000  # MKL_CBWR_STRICT


def test_products_of_matrices_are_in_strict_mode() -> None:
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    if not library.exists() or not hasattr(ctypes.CDLL(str(library)), "mkl_serv_cbwr_get"):
        pytest.skip("this torch was built without MKL")
    torch.rand(4, 4) @ torch.rand(4, 4)  # MKL reads its environment at the first product
    assert ctypes.CDLL(str(library)).mkl_serv_cbwr_get(-1) & _STRICT
