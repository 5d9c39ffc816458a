"""Which rows are looked at again: right ones, half of them among those that stood, drawn from the seed."""

import numpy as np
from numpy.typing import NDArray

ROWS = 64


def sample(right: NDArray[np.bool_], stands: NDArray[np.bool_], seed: int) -> NDArray[np.int64]:
    """Places (N,) in rising order, N at most ROWS, of rows that were `right`; both masks (rows,), `stands` within `right`."""
    drawn = np.random.Generator(np.random.PCG64([seed, 0x7E57])).permutation(len(right))
    standing, fallen = (drawn[mask[drawn]] for mask in (stands, right & ~stands))
    few = max(ROWS // 2, ROWS - len(fallen))
    chosen: NDArray[np.int64] = np.sort(np.concatenate((standing[:few], fallen[: ROWS - min(few, len(standing))]))).astype(np.int64)
    return chosen
