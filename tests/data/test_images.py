from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hwsearch.data.images import read_rgb
from hwsearch.errors import DataError

GREY = np.arange(6 * 4, dtype=np.uint8).reshape(4, 6) * 10


def test_every_8_bit_mode_becomes_rgb(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    expected = np.stack([GREY] * 3, axis=-1)
    for mode in ("L", "RGB", "RGBA", "P", "LA"):
        Image.fromarray(GREY).convert(mode).save(path)
        pixels = read_rgb(path, width=6, height=4)
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, expected, err_msg=mode)


def save_turned(path: Path) -> None:
    image = Image.fromarray(GREY)
    exif = image.getexif()
    exif[0x0112] = 6  # to be shown turned clockwise by a quarter
    image.save(path, exif=exif)


def test_orientation_follows_the_annotated_size(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    save_turned(path)
    np.testing.assert_array_equal(read_rgb(path, width=4, height=6)[..., 0], np.rot90(GREY, k=-1))
    np.testing.assert_array_equal(read_rgb(path, width=6, height=4)[..., 0], GREY)


def test_deep_pixels_are_refused_rather_than_clipped(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(GREY.astype(np.uint16) * 100).save(path)
    with pytest.raises(DataError, match="more than 8 bits"):
        read_rgb(path, width=6, height=4)


@pytest.mark.parametrize("colours", [2, 4, 6])  # of PNG: RGB, grey with alpha, RGB with alpha
def test_deep_colours_are_refused_rather_than_turned_black(tmp_path: Path, colours: int) -> None:
    """12 bits in 16, as of a microscope: the high bytes, which Pillow keeps, are nearly zero."""
    channels = {2: 3, 4: 2, 6: 4}[colours]
    rows = b"".join(b"\0" + bytes([1, 200] * channels * 6) for _ in range(4))

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", 6, 4, 16, colours, 0, 0, 0)
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    with pytest.raises(DataError, match="more than 8 bits"):
        read_rgb(path, width=6, height=4)


def test_sixteen_bits_a_pixel_are_not_sixteen_a_channel(tmp_path: Path) -> None:
    """A bitmap of five, six and five bits: red, green, and blue below them."""
    pixels = np.full((4, 6), 0b11111_000000_00000, "<u2")
    header = struct.pack("<IiiHHIIiiII3I", 40, 6, -4, 1, 16, 3, 48, 0, 0, 0, 0, 0xF800, 0x7E0, 0x1F)
    path = tmp_path / "a.bmp"
    start = struct.pack("<2sIHHI", b"BM", 14 + len(header) + 48, 0, 0, 14 + len(header))
    path.write_bytes(start + header + pixels.tobytes())
    assert (read_rgb(path, width=6, height=4) == [255, 0, 0]).all()


def test_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(GREY).save(path)
    whole = path.read_bytes()
    for content in (b"", b"no image", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.png can't be read"):
            read_rgb(path, width=6, height=4)
