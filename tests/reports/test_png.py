import io

import numpy as np
import pytest
from PIL import Image

from sparring.reports.png import SIGNATURE, png


@pytest.mark.parametrize(("shape", "mode"), [((5, 4, 1), "L"), ((1, 1, 1), "L"), ((3, 7, 3), "RGB")])
def test_a_library_of_pictures_reads_what_was_written(shape, mode):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    file = png(pixels.tobytes(), shape[1], shape[0], shape[2])
    assert file.startswith(SIGNATURE)
    read = Image.open(io.BytesIO(file))
    read.load()
    assert (read.format, read.mode) == ("PNG", mode)
    np.testing.assert_array_equal(np.asarray(read).reshape(shape), pixels)


@pytest.mark.parametrize(("count", "size"), [(12, (3, 4, 2)), (11, (3, 4, 1)), (0, (0, 0, 1)), (13, (4, 3, 1))])
def test_what_is_no_picture_is_refused(count, size):
    with pytest.raises(ValueError, match=f"{count} bytes are no picture"):
        png(bytes(count), *size)
