"""Reading and writing images: what is read, what is refused, and damaged files by the hundred."""

from __future__ import annotations

import io
import os
import struct
import threading
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from fastface import images
from fastface.errors import BadArgument, BadImage, WriteFailed
from fastface.images import read_image, write_image


def pattern(height: int = 24, width: int = 32) -> NDArray[np.uint8]:
    """A smooth picture whose corners differ, so that no turn or flip of it looks like another."""
    y, x = np.mgrid[:height, :width]
    red, green, blue = 255 * x / width, 255 * y / height, 255 * (x + y) / (width + height)
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return stream.getvalue()


def png_of(width: int, height: int, depth: int = 8, colour: int = 2, rows: bytes = b"") -> bytes:
    """A PNG with a header as given, whatever its pixels are."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


# --- what is read -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF", "WEBP", "JPEG", "JPEG2000"])
def test_formats(kind: str, tmp_path: Path) -> None:
    rgb = pattern()
    lossless: dict[str, dict[str, Any]] = {
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 98, "subsampling": 0},
    }
    data = encoded(Image.fromarray(rgb), kind, **lossless.get(kind, {}))
    file = tmp_path / "picture"
    file.write_bytes(data)
    for source in (data, bytearray(data), memoryview(data), file, str(file), Image.open(io.BytesIO(data))):
        got = read_image(source)
        assert got.shape == rgb.shape
        assert got.dtype == np.uint8
        assert got.flags.c_contiguous
        assert got.flags.writeable
        tolerance = {"GIF": 24, "JPEG": 6}.get(kind, 0)
        assert np.abs(got.astype(int) - rgb).max() <= tolerance


def test_reading_copies_the_callers_pixels() -> None:
    rgb = pattern()
    for source in (rgb, Image.fromarray(rgb)):
        got = read_image(source)
        got[:] = 0
        assert np.array_equal(np.asarray(source), pattern())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation(orientation: int, kind: str) -> None:
    # Exif 2.32: what row 0 and column 0 of the stored picture are in the upright one.
    store: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    upright = pattern(64, 96)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(store[orientation](upright)))
    got = read_image(encoded(stored, kind, exif=exif))
    assert got.shape == upright.shape
    assert np.abs(got.astype(int) - upright).mean() < 4


def test_sixteen_bit_values_are_scaled() -> None:
    ramp = np.linspace(0, 65535, 24 * 32).reshape(24, 32).astype(np.uint16)
    expected = np.round(ramp / 257).astype(int)
    for kind in ("PNG", "TIFF"):
        got = read_image(encoded(Image.fromarray(ramp), kind))
        assert np.abs(got - expected[..., None]).max() <= 1, kind
    big_endian = b"".join(b"\0" + row.astype(">u2").tobytes() for row in np.repeat(ramp, 3, 1))
    got = read_image(png_of(32, 24, depth=16, rows=big_endian))
    assert np.abs(got - expected[..., None]).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "I;16", "I", "HSV"])
def test_other_modes(mode: str) -> None:
    grey = Image.fromarray(pattern()).convert("L")
    if mode == "I;16":
        source = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    elif mode == "I":
        source = Image.fromarray(np.asarray(grey).astype(np.int32) * 257)
    else:
        source = grey.quantize(64) if mode == "P" else grey.convert("RGB").convert(mode)
    assert source.mode == mode
    got = read_image(source).astype(int)
    assert got.shape == (24, 32, 3)
    if mode != "1":
        assert np.abs(got - np.asarray(grey)[..., None]).mean() < 6


def test_cmyk_jpeg_keeps_its_colours() -> None:
    red = Image.new("RGB", (16, 16), (200, 30, 30))
    got = read_image(encoded(red.convert("CMYK"), "JPEG", quality=95))
    assert np.abs(got.astype(int) - (200, 30, 30)).max() < 12


def test_transparency_is_laid_over_white() -> None:
    layer = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    layer.putpixel((0, 0), (200, 0, 0, 255))
    layer.putpixel((1, 0), (200, 0, 0, 128))
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([200, 0, 0, 0, 0, 200])
    palette.info["transparency"] = 1
    for source in (layer, encoded(layer, "PNG"), np.asarray(layer)):
        got = read_image(source)
        assert tuple(got[0, 0]) == (200, 0, 0)
        assert np.abs(got[0, 1].astype(int) - (227, 127, 127)).max() <= 1
        assert (got[1:] == 255).all()
    assert (read_image(encoded(palette, "PNG", transparency=1)) == 255).all()
    assert (read_image(Image.new("LA", (3, 3), (0, 0))) == 255).all()


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (9, 7), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        got = read_image(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options))
        assert got.shape == (7, 9, 3)
        assert np.abs(got.astype(int) - (250, 0, 0)).max() <= 2, kind


def test_colour_profile_is_applied() -> None:
    flat = Image.new("RGB", (8, 8), (200, 60, 60))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(read_image(encoded(flat, "PNG", icc_profile=srgb)), np.asarray(flat))
    assert np.array_equal(read_image(encoded(flat, "PNG", icc_profile=b"no profile")), np.asarray(flat))
    # The same profile with its red and blue primaries exchanged: pixels must come out exchanged as well.
    swapped = srgb.replace(b"rXYZ", b"tmpX").replace(b"bXYZ", b"rXYZ").replace(b"tmpX", b"bXYZ")
    swapped = swapped.replace("sRGB".encode("utf-16-be"), "XXXX".encode("utf-16-be"))
    got = read_image(encoded(flat, "PNG", icc_profile=swapped))
    assert np.abs(got.astype(int) - (60, 60, 200)).max() <= 3


def test_a_very_wide_picture() -> None:
    wide = np.zeros((3, 30_000, 3), np.uint8)
    wide[:, ::2] = 200
    assert np.array_equal(read_image(encoded(Image.fromarray(wide), "PNG")), wide)
    assert read_image(np.full((1, 1, 3), 7, np.uint8)).tolist() == [[[7, 7, 7]]]


class FakeTensor:
    """What a tensor of another library shows: on a device, in a gradient's graph."""

    def __init__(self, values: NDArray[Any], steps: tuple[str, ...] = ("detach", "cpu")) -> None:
        self.values, self.steps = values, steps
        self.shape, self.dtype = values.shape, values.dtype

    def detach(self) -> FakeTensor:
        return FakeTensor(self.values, tuple(step for step in self.steps if step != "detach"))

    def cpu(self) -> FakeTensor:
        return FakeTensor(self.values, tuple(step for step in self.steps if step != "cpu"))

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        if self.steps:
            raise RuntimeError(f"needs {self.steps} first")
        return self.values


class OnlyDlpack:
    """An array that speaks nothing but DLPack."""

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = values

    def __dlpack__(self, **options: Any) -> Any:
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.values.__dlpack_device__()


def test_arrays() -> None:
    rgb = pattern()
    floats = rgb.astype(np.float32) / 255
    sources: list[Any] = [
        rgb,
        rgb.astype(np.uint16) * 257,
        floats,
        floats.astype(np.float64),
        rgb.transpose(2, 0, 1),
        FakeTensor(rgb),
        FakeTensor(floats.transpose(2, 0, 1)),
        OnlyDlpack(rgb),
        np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)]),
        rgb[:, ::-1][:, ::-1],
    ]
    for source in sources:
        assert np.array_equal(read_image(source), rgb), source
    assert np.array_equal(read_image(rgb[:, :, 0]), np.repeat(rgb[:, :, :1], 3, 2))
    assert np.array_equal(read_image(rgb[:, :, :1]), np.repeat(rgb[:, :, :1], 3, 2))


def test_torch_tensor() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(pattern() / 255.0, requires_grad=True).permute(2, 0, 1)
    assert np.array_equal(read_image(tensor), pattern())
    with pytest.raises(BadImage):
        read_image(torch.zeros((8, 8, 3), dtype=torch.bfloat16))


# --- what is refused ----------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        np.zeros((4, 4, 3), np.int64),
        np.zeros((4, 4, 3), np.int8),
        np.zeros((4, 4, 3), bool),
        np.zeros((4, 4, 3), complex),
        np.full((4, 4, 3), "x", object),
        np.full((4, 4, 3), np.nan),
        np.full((4, 4, 3), np.inf),
        np.full((4, 4, 3), 128.0),
        np.full((4, 4, 3), -0.1),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((2, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(7, np.uint8),
        np.uint8(7),
        b"",
        b"no image at all",
        b"\x89PNG\r\n\x1a\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        png_of(0, 5),
        Image.new("F", (3, 3), float("nan")),
        Image.new("F", (3, 3), 200.0),
        Image.new("I", (3, 3), 70_000),
        Image.new("RGB", (0, 3)),
    ],
    ids=lambda value: f"{type(value).__name__} {getattr(value, 'shape', '')} {getattr(value, 'dtype', '')}"[
        :40
    ],
)
def test_bad_images(source: object) -> None:
    with pytest.raises(BadImage):
        read_image(source)


@pytest.mark.parametrize("source", [None, 5, [[1, 2], [3, 4]], object(), 3.5])
def test_wrong_kinds_of_argument(source: object) -> None:
    with pytest.raises(BadArgument, match=type(source).__name__):
        read_image(source)


@pytest.mark.parametrize("max_pixels", [0, -1, 1.5, True, "many"])
def test_wrong_limit(max_pixels: Any) -> None:
    with pytest.raises(BadArgument):
        read_image(pattern(), max_pixels=max_pixels)


def test_the_declared_size_is_checked_before_decoding() -> None:
    source: object
    tracemalloc.start()
    for width, height in ((30_000, 30_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1), (12_000, 12_000)):
        for source in (png_of(width, height), png_of(width, height, rows=bytes(1 << 22))):
            with pytest.raises(BadImage, match=f"{width}|exceeds|cannot be decoded"):
                read_image(source)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 << 20  # the smallest of them would be 412 MiB
    rgb = pattern()
    for source in (rgb, Image.fromarray(rgb), encoded(Image.fromarray(rgb), "PNG")):
        assert read_image(source, max_pixels=rgb.shape[0] * rgb.shape[1]).shape == rgb.shape
        with pytest.raises(BadImage, match="32 x 24"):
            read_image(source, max_pixels=rgb.shape[0] * rgb.shape[1] - 1)


def test_no_warning_within_the_limit(recwarn: pytest.WarningsRecorder) -> None:
    with pytest.raises(
        BadImage
    ):  # 95 million pixels are allowed here, and more than Pillow likes; no rows follow
        read_image(png_of(9_500, 10_000))
    assert not [each for each in recwarn if issubclass(each.category, Image.DecompressionBombWarning)]


def test_paths_that_are_no_image_files(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.png"
    os.mkfifo(fifo)
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    empty = tmp_path / "empty.png"
    empty.touch()
    sources = [
        tmp_path,
        fifo,
        loop,
        empty,
        tmp_path / "missing.png",
        "/dev/zero",
        "/dev/null",
        "bad\0name.png",
    ]
    sources.append(str(tmp_path / ("long" * 100)))

    def read_all() -> None:
        for source in sources:
            with pytest.raises(BadImage):
                read_image(source)
        done.append(True)

    done: list[bool] = []
    reader = threading.Thread(target=read_all, daemon=True)
    reader.start()
    reader.join(timeout=10)
    assert done, "reading waited for something, or raised another error"


def test_an_unreadable_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(BadImage, match="Permission denied"):
        read_image("locked.png")


def test_refused_paths_leave_no_file_open(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    for source in (tmp_path, "/dev/null", "/proc/self/maps"):
        with pytest.raises(BadImage):
            read_image(source)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def corpus(kind: str) -> list[bytes]:
    """A few hundred damaged variants of one file: cut off, bits flipped, parts zeroed, doubled, dropped."""
    rng = np.random.default_rng(zlib.crc32(kind.encode()))
    noise = rng.integers(0, 256, (40, 56, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    options: dict[str, Any] = {} if kind in {"GIF", "BMP", "JPEG2000"} else {"exif": exif}
    if kind == "TIFF":
        options["compression"] = "tiff_lzw"
    whole = encoded(Image.fromarray(noise // 2 + pattern(40, 56) // 2), kind, **options)
    variants = [whole[: int(n)] for n in np.linspace(0, len(whole) - 1, 40)]
    for _ in range(60):
        damaged = bytearray(whole)
        # The first bytes hold what a decoder believes; damage them more often than the rest.
        reach = len(whole) if rng.random() < 0.5 else min(200, len(whole))
        for at in rng.integers(0, reach, rng.integers(1, 12)):
            damaged[at] ^= 1 << int(rng.integers(8))
        variants.append(bytes(damaged))
    for _ in range(20):
        start, stop = sorted(rng.integers(0, len(whole), 2))
        variants.append(whole[:start] + bytes(stop - start) + whole[stop:])
        variants.append(whole[:start] + whole[stop:])
        variants.append(whole[:stop] + whole[start:])
    return variants


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "JPEG2000"])
def test_damaged_files(kind: str) -> None:
    read = refused = 0
    for data in corpus(kind):
        try:
            got = read_image(data, max_pixels=1_000_000)
        except BadImage:
            refused += 1
        else:
            read += 1
            assert got.dtype == np.uint8
            assert got.ndim == 3
            assert got.shape[2] == 3
    assert read >= 5, "some damage, to a comment or a pixel, does not make a file unreadable"
    assert refused >= 40


# --- writing ------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".webp"])
def test_writing(suffix: str, tmp_path: Path) -> None:
    rgb, packet = pattern(), b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
    file = tmp_path / f"picture{suffix}"
    file.write_bytes(b"what was there before")
    write_image(file, rgb, xmp=packet)
    assert os.listdir(tmp_path) == [file.name]
    assert np.abs(read_image(file).astype(int) - rgb).max() <= (0 if suffix == ".png" else 12)
    with Image.open(file) as image:
        assert image.info["xmp"].rstrip(b"\0") == packet
    write_image(str(file), rgb[::-1])
    with Image.open(file) as image:
        assert "xmp" not in image.info
    expected_mode = 0o666 & ~current_umask()
    assert file.stat().st_mode & 0o777 == expected_mode


def current_umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_quality_matters_for_lossy_kinds(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for suffix in (".jpg", ".webp"):
        sizes = []
        for quality in (20, 95):
            write_image(tmp_path / f"a{suffix}", noise, quality=quality)
            sizes.append((tmp_path / f"a{suffix}").stat().st_size)
        assert sizes[0] < 0.6 * sizes[1]


@pytest.mark.parametrize(
    ("name", "rgb", "options"),
    [
        ("a.gif", pattern(), {}),
        ("a", pattern(), {}),
        ("", pattern(), {}),
        ("a.png", pattern()[:, :, :1], {}),
        ("a.png", pattern().astype(np.float32), {}),
        ("a.png", pattern().tolist(), {}),
        ("a.png", np.zeros((0, 4, 3), np.uint8), {}),
        ("a.webp", np.zeros((1, 16384, 3), np.uint8), {}),
        ("a.jpg", np.zeros((65501, 1, 3), np.uint8), {}),
        ("a.jpg", pattern(), {"quality": 0}),
        ("a.jpg", pattern(), {"quality": 101}),
        ("a.jpg", pattern(), {"quality": 90.5}),
        ("a.jpg", pattern(), {"xmp": bytes(65503)}),
        ("a.jpg", pattern(), {"xmp": "text"}),
    ],
)
def test_wrong_arguments_of_writing(name: str, rgb: Any, options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BadArgument):
        write_image(tmp_path / name, rgb, **options)
    assert os.listdir(tmp_path) == []


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "folder.png"
    folder.mkdir()
    places: list[str | Path] = [folder, tmp_path / "missing" / "a.png", "/proc/a.png", f"{tmp_path}/a\0b.png"]
    places.append(f"{tmp_path}/{'long' * 100}.png")
    for place in places:
        with pytest.raises(WriteFailed):
            write_image(place, pattern())
    assert os.listdir(tmp_path) == [folder.name]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["write_bytes", "replace"])
def test_nothing_is_left_after_a_failure(
    failure: BaseException, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"what was there before")

    def fail(*_: object) -> None:
        raise failure

    owner: Any = Path if step == "write_bytes" else os
    monkeypatch.setattr(owner, step, fail)
    with pytest.raises(WriteFailed if isinstance(failure, OSError) else KeyboardInterrupt):
        write_image(file, pattern())
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["a.png"]
    assert file.read_bytes() == b"what was there before"


def test_only_formats_of_the_list_are_open() -> None:
    Image.init()
    assert "EPS" not in images.READABLE
    data = encoded(Image.fromarray(pattern()), "ICO")
    with pytest.raises(BadImage, match="not an image of a known format"):
        read_image(data)
