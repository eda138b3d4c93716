from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from dataset_files import noise, png
from securitynet.datasets.rendering import Rendering, UnexpectedColour, read_natural_shape, render_image
from securitynet.errors import DatasetError

COLOUR = Rendering(3, 4, 4, resize=False)
GREY = Rendering(1, 4, 4, resize=False)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_images_come_back_as_they_were(channels: int) -> None:
    array = noise(1, channels, 4, 4)[0]
    rendering = Rendering(channels, 4, 4, resize=False)
    assert read_natural_shape(png(array), "x") == (channels, 4, 4)
    assert np.array_equal(render_image(png(array), "x", rendering), array)
    assert render_image(array, "x", rendering) is array


def test_colour_becomes_luma_by_rec_601() -> None:
    array = noise(1, 3, 4, 4)[0]
    expected = 0.299 * array[0] + 0.587 * array[1] + 0.114 * array[2]
    for item in (array, png(array)):
        assert np.abs(render_image(item, "x", GREY)[0] - expected).max() <= 0.51


def test_grey_is_repeated() -> None:
    array = noise(1, 1, 4, 4)[0]
    for item in (array, png(array)):
        assert np.array_equal(render_image(item, "x", COLOUR), np.repeat(array, 3, axis=0))


def test_an_image_cut_short_is_refused_whatever_the_process_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    whole = png(noise(1, 3, 32, 32)[0])
    with pytest.raises(DatasetError, match="not a readable image"):
        render_image(whole[: len(whole) // 2], "x", Rendering(3, 32, 32, resize=False))
    render_image(whole, "x", Rendering(3, 32, 32, resize=False))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True  # as the process wants


def test_resizing_is_antialiased() -> None:
    # A fine checkerboard averages to mid-grey; without antialiasing it would come out black or white.
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[None]
    small = render_image(board, "x", Rendering(1, 8, 8, resize=True))
    assert np.abs(small.astype(int) - 127).max() <= 2


def test_a_file_and_an_array_are_resized_alike() -> None:
    array = noise(1, 3, 9, 7)[0]
    rendering = Rendering(3, 5, 5, resize=True)
    assert np.array_equal(render_image(array, "x", rendering), render_image(png(array), "x", rendering))


def test_a_centred_crop_leaves_the_margins_out() -> None:
    array = np.zeros((1, 40, 80), np.uint8)
    array[0, :, 18:62] = 200
    cropped = render_image(array, "x", Rendering(1, 8, 8, resize=True, crop=0.8))
    assert (cropped == 200).all()
    assert render_image(array, "x", Rendering(1, 8, 8, resize=True)).min() == 0


def test_transparent_palette_sixteen_bit_and_print_images() -> None:
    rgb = Image.new("RGB", (4, 4), (10, 200, 30))
    with_alpha = rgb.copy()
    with_alpha.putalpha(Image.new("L", (4, 4), 128))
    palette = rgb.convert("P", palette=Image.Palette.ADAPTIVE)
    for image in (with_alpha, palette):
        assert render_image(encoded(image), "x", COLOUR)[:, 0, 0].tolist() == [10, 200, 30]
    assert render_image(encoded(palette, transparency=0), "x", COLOUR)[:, 0, 0].tolist() == [10, 200, 30]
    printed = encoded(rgb.convert("CMYK"), "JPEG", quality=100)
    assert np.abs(render_image(printed, "x", COLOUR)[:, 0, 0].astype(int) - [10, 200, 30]).max() <= 4
    deep = Image.fromarray(np.full((4, 4), 257 * 100, np.uint16))
    assert read_natural_shape(encoded(deep), "x")[0] == 1
    assert (render_image(encoded(deep), "x", GREY) == 100).all()
    assert (render_image(encoded(Image.new("1", (4, 4), 1)), "x", GREY) == 255).all()
    assert (render_image(encoded(Image.new("LA", (4, 4), (7, 9))), "x", GREY) == 7).all()


def test_colour_among_grey_is_reported() -> None:
    with pytest.raises(UnexpectedColour):
        render_image(png(noise(1, 3, 4, 4)[0]), "x", Rendering(1, 4, 4, resize=False, grey_only=True))


def bomb(side: int) -> bytes:
    """A PNG of a few bytes whose header claims side×side pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 60_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bombs_are_refused_unread(side: int) -> None:
    with pytest.raises(DatasetError, match="claims to have more than"):
        render_image(bomb(side), "x", COLOUR)
    with pytest.raises(DatasetError, match="claims to have more than"):
        read_natural_shape(bomb(side), "x")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_cut_off_files_are_errors_of_ours(kind: str) -> None:
    whole = encoded(Image.fromarray(noise(1, 3, 64, 64)[0].transpose(1, 2, 0)), kind)
    for length in (0, 3, 20, len(whole) // 2):
        with pytest.raises(DatasetError, match="the-name is not a readable image"):
            render_image(whole[:length], "the-name", Rendering(3, 64, 64, resize=False))


def test_floating_point_images_are_refused() -> None:
    with pytest.raises(DatasetError, match="floating-point"):
        render_image(encoded(Image.new("F", (4, 4), 0.5), "TIFF"), "x", COLOUR)
