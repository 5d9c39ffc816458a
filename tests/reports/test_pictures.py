import io
import zipfile
from pathlib import Path

import pytest

from sparring.contract.specs import DataSpec
from sparring.reports.pictures import LARGEST, PICTURES, Album, Broken, Unreadable, upright, why_none
from sparring.reports.png import SIGNATURE, png
from tests.reports import factory

DOT = png(b"\x07", 1, 1, 1)
PAIR = Broken(png(b"\x01", 1, 1, 1), png(b"\x02", 1, 1, 1))


def written() -> bytes:
    file = io.BytesIO()
    with Album(file, new=True) as album:
        album.keep_original(5, DOT)
        album.keep_broken(1, 5, PAIR)
        album.keep_original(5, DOT)
    return file.getvalue()


def test_what_was_kept_is_found_by_threat_and_row():
    with Album(io.BytesIO(written())) as album:
        assert album.original(5) == DOT
        assert album.broken(1, 5) == PAIR
        assert [album.original(1), album.broken(0, 5), album.broken(1, 1)] == [None] * 3
    assert written() == written(), "the same pictures make the same bytes"


@pytest.mark.parametrize("content", [b"", b"hello", written()[:-30]])
def test_what_is_no_zip_is_unreadable(content):
    with pytest.raises(Unreadable, match=r"pictures\.zip cannot be read"):
        Album(io.BytesIO(content))


@pytest.mark.parametrize("content", [b"<svg onload=alert(1)>", SIGNATURE + bytes(LARGEST)])
def test_what_is_no_picture_is_never_handed_out(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("original/5.png", content)
    with Album(file) as album, pytest.raises(Unreadable, match=r"original/5\.png in pictures\.zip is no picture"):
        album.original(5)


def test_a_damaged_picture_is_unreadable():
    damaged = bytearray(written())
    damaged[damaged.index(DOT) + 20] ^= 1
    with Album(io.BytesIO(bytes(damaged))) as album, pytest.raises(Unreadable, match=r"original/5\.png .* cannot be read"):
        album.original(5)


@pytest.mark.parametrize(
    ("shape", "layout", "seen"),
    [
        ((1, 28, 28), None, (28, 28, 1)),
        ((3, 32, 24), "NCHW", (32, 24, 3)),
        ((32, 24, 3), "NHWC", (32, 24, 3)),
        ((28, 28), None, (28, 28, 1)),
        ((32, 24, 3), "NCHW", None),
        ((2, 28, 28), None, None),
        ((1, 3, 28), None, None),
        ((1, 28, 1025), None, None),
        ((64,), None, None),
        ((1, 1, 28, 28), None, None),
    ],
)
def test_rows_are_pictures_by_their_shape(shape, layout, seen):
    assert upright(shape, layout) == seen


def test_why_there_are_none():
    data = factory.report().data
    assert "No pictures of them were kept" in why_none(data)
    table = data.model_copy(update={"shape": (100, 20), "spec": DataSpec(bounds="none", scale=1.0)})
    assert why_none(table) == "The rows are no pictures: their shape is 20."


def test_a_packed_picture_is_not_unpacked(tmp_path: Path) -> None:
    for way in (zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(tmp_path / PICTURES, "w", way) as file:
            file.writestr("original/0.png", SIGNATURE + bytes(1000))
        with Album(tmp_path / PICTURES) as album, pytest.raises(Unreadable, match="packed"):
            album.original(0)
