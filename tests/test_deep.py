"""Gray images of more than 8 bits: one range for all images of a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_folders import make
from numpy.typing import NDArray
from PIL import Image

from metarun.data.files.decode import Scale
from metarun.data.files.deep import Limits, guess_range

RNG = np.random.default_rng(0)
TEXTURES = RNG.integers(0, 256, (8, 4, 16, 16))
"""Gray values of 8 bits for four images of each of 8 classes; classes get darker, as exposures do."""
TEXTURES = (TEXTURES * np.linspace(1, 0.1, 8)[:, None, None, None]).astype(np.int64)
TEXTURES[0, 0, 0, 0] = 255


def write(root: Path, values: NDArray[np.generic], ending: str = "png") -> Path:
    for c, images in enumerate(values):
        (root / f"c{c}").mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(root / f"c{c}" / f"{i}.{ending}")
    return root


def pixels(root: Path, cache: Path, **changes: object) -> NDArray[np.uint8]:
    source = make(root, cache, **changes)
    return source.pixels[:, 0].numpy().reshape(TEXTURES.shape)


FORMS = {
    "8 bits of 16": (TEXTURES.astype(np.uint16), "png", (0, 255)),
    "10 bits of 16": ((TEXTURES * 1023 / 255).round().astype(np.uint16), "png", (0, 1023)),
    "12 bits of 16": ((TEXTURES * 4095 / 255).round().astype(np.uint16), "png", (0, 4095)),
    "12 bits of 16, not all used": ((TEXTURES * 4000 / 255).round().astype(np.uint16), "tif", (0, 4095)),
    "16 bits": ((TEXTURES * 257).astype(np.uint16), "png", (0, 65535)),
    "16 bits, TIFF": ((TEXTURES * 257).astype(np.uint16), "tif", (0, 65535)),
    "32 bits": ((TEXTURES * 257 * 16).astype(np.int32), "tif", (0, 65535 * 16)),
    "12 bits of 32": ((TEXTURES * 4095 / 255).round().astype(np.int32), "tif", (0, 4095)),
    "below 0": ((TEXTURES * 4 - 500).astype(np.int32), "tif", (-500, 520)),
    "fractions": ((TEXTURES / 255).astype(np.float32), "tif", (0, 1)),
    "small fractions": ((TEXTURES / 25500).astype(np.float32), "tif", (0, 0.01)),
    "fractions below 0": ((TEXTURES / 127.5 - 1).astype(np.float32), "tif", (-1, 1)),
    "12 bits as fractions": ((TEXTURES * 4095 / 255).astype(np.float32), "tif", (0, 4095)),
    "PGM": ((TEXTURES * 257).astype(np.uint16), "pgm", (0, 65535)),
}


@pytest.mark.parametrize(("values", "ending", "limits"), FORMS.values(), ids=FORMS)
def test_all_images_are_scaled_by_one_range_which_is_told(
    values: NDArray[np.generic],
    ending: str,
    limits: tuple[float, float],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each range holds the textures' 0..255, but for the one of which 4000 of 4095 are used."""
    got = pixels(write(tmp_path / "deep", values, ending), tmp_path)
    expected = TEXTURES * 4000 / 4095 if values.max() == 4000 else TEXTURES
    assert np.abs(got.astype(float) - expected).max() <= 1
    assert f"black is taken to be {limits[0]:g}, white {limits[1]:g}. If they are others, set data.range" in caplog.text
    assert "32 of the 32 images of deep are gray of more than 8 bits" in caplog.text


def test_a_range_that_is_set_holds_and_nothing_is_guessed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write(tmp_path / "deep", (TEXTURES * 4).astype(np.uint16))
    guessed, known = pixels(root, tmp_path), pixels(root, tmp_path, range=(0, 2040))
    assert (known == (TEXTURES / 2).round()).all()
    assert np.abs(guessed.astype(int) - TEXTURES).max() <= 1
    assert caplog.text.count("black is taken") == 1


def test_a_range_without_deep_images_is_told_to_have_no_effect(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write(tmp_path / "plain", TEXTURES.astype(np.uint8))
    plain = pixels(root, tmp_path)
    assert "data.range" not in caplog.text
    assert (pixels(root, tmp_path, range=(0, 2040)) == plain).all()
    assert "data.range has no effect: none of the images of plain is gray of more than 8 bits" in caplog.text


def test_images_of_8_bits_beside_deep_ones_stay_as_they_are(tmp_path: Path) -> None:
    root = write(tmp_path / "mixed", (TEXTURES * 16).astype(np.uint16))
    for i in range(4):
        Image.fromarray(TEXTURES[3, i].astype(np.uint8)).save(root / "c3" / f"{i}.png")
    assert np.abs(pixels(root, tmp_path).astype(int) - TEXTURES).max() <= 1


@pytest.mark.parametrize("wrong", [(3, 3), (0, float("nan")), (float("-inf"), 0)])
def test_a_range_that_is_none_is_refused(wrong: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"data.range=\[.*\] must be the values of black and white, as \[0,4095\]"):
        Scale(16, "nearest", range=wrong)


def test_an_image_without_any_number_is_black(tmp_path: Path) -> None:
    values = (TEXTURES / 255).astype(np.float32)
    values[0, 1] = np.nan
    values[0, 2, 0] = np.inf
    got = pixels(write(tmp_path / "deep", values, "tif"), tmp_path)
    assert (got[0, 1] == 0).all()
    assert (got[0, 2, 0] == 255).all()
    assert np.abs(got[1:].astype(int) - TEXTURES[1:]).max() <= 1


def test_colours_of_16_bits_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Pillow cannot write them; this is a PNG file of one pixel for each class."""
    root = write(tmp_path / "colours", TEXTURES.astype(np.uint8))
    for c in range(8):
        (root / f"c{c}" / "0.png").write_bytes(_png_of_16_bits())
    pixels(root, tmp_path)
    assert "8 of the images of colours have colours of 16 bits, of which the upper 8 are used" in caplog.text


def _png_of_16_bits() -> bytes:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    data = zlib.compress(b"\0" + struct.pack(">HHH", 4095, 2000, 10))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_fractions_that_use_a_quarter_of_their_range_are_not_stretched() -> None:
    assert guess_range([Limits(0, 0.3, True)]) == (0, 1)
    assert guess_range([Limits(0, 0.2, True)]) == (0, 0.2)


@pytest.mark.parametrize("range_", [None, (0, 1)])
def test_pixels_that_are_no_numbers_are_told_and_black(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, range_: tuple[float, float] | None
) -> None:
    """One of 32 images of fractions has a hole."""
    values = (TEXTURES / 255).astype(np.float32)
    values[3, 1, 5, 6] = np.nan
    got = pixels(write(tmp_path / "deep", values, "tif"), tmp_path, range=range_)
    assert got[3, 1, 5, 6] == 0
    said = "1 of the 32 images of deep have pixels that are no numbers, of which black is made, c3/1.tif among them"
    assert caplog.text.count(said) == 1
