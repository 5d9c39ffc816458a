import numpy as np
import pytest

from sparring.contract.specs import DataSpec
from sparring.errors import UsageProblem
from sparring.peek import check_bounds


def saved(tmp_path, dtype, save=np.savez):
    save(tmp_path / "data.npz", x=np.zeros((2, 3), dtype), y=np.zeros(2, int))
    return tmp_path / "data.npz"


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "int16"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_numbers_without_bounds_are_found_beforehand(tmp_path, dtype, save):
    file = saved(tmp_path, dtype, save)
    with pytest.raises(UsageProblem, match="lowest and highest legal value are not known") as caught:
        check_bounds(file, None)
    assert "--bounds 0,1" in caught.value.hint
    check_bounds(file, DataSpec(bounds="none"))


def test_bytes_need_bounds_only_where_their_scale_is_another(tmp_path):
    file = saved(tmp_path, "uint8")
    check_bounds(file, None)
    with pytest.raises(UsageProblem):
        check_bounds(file, DataSpec(scale=1.0))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"text", None])
def test_what_is_no_dataset_is_left_to_the_service(tmp_path, content):
    if content is not None:
        (tmp_path / "data.npz").write_bytes(content)
    check_bounds(tmp_path / "data.npz", None)
