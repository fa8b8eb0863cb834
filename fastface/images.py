"""Reading and writing images: whatever a caller has, to RGB uint8 and back.

Reading never runs other programs, never waits (a FIFO or device is refused), and looks at the declared size
before anything is decoded.
"""

from __future__ import annotations

import io
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, PngImagePlugin, UnidentifiedImageError

from fastface.atomic import write_whole
from fastface.errors import BadArgument, BadImage, WriteFailed

RGB = NDArray[np.uint8]

MAX_PIXELS: Final = 100_000_000
READABLE: Final[tuple[str, ...]] = (
    "JPEG",
    "MPO",
    "PNG",
    "WEBP",
    "GIF",
    "TIFF",
    "BMP",
    "PPM",
    "JPEG2000",
    "AVIF",
)
"""Formats that are read. Left out: what Pillow hands to other programs (EPS), and the rare ones."""

_WRITABLE: Final = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_LONGEST_SIDE: Final = {"PNG": 2**31 - 1, "JPEG": 65500, "WEBP": 16383}
_LONGEST_XMP: Final = (
    65502  # what one JPEG segment holds; the same limit everywhere keeps formats exchangeable
)
_LARGEST_PROFILE: Final = 4 << 20
_ORIENTATION_TAG: Final = 0x0112
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to the operation that sets the image upright (Exif 2.32, section 4.6.4 A)."""


def read_image(source: object, *, max_pixels: int = MAX_PIXELS) -> RGB:
    """Return an image as (H, W, 3) uint8 RGB, C-contiguous, a copy of the caller's data.

    source: path, encoded bytes, PIL image, or array (numpy, torch, all that has `__array__` or `__dlpack__`).
    max_pixels: larger images are refused before they are decoded. (Pillow refuses files above twice
    `PIL.Image.MAX_IMAGE_PIXELS` in any case.)

    Files and PIL images: turned upright by their EXIF orientation; converted to sRGB if they carry another
    colour profile; of an animation the first frame; transparency laid over white; 16 bits scaled to 8.
    Arrays: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or (3, H, W) and (1, H, W) as tensors are;
    uint8, uint16, or floats in [0, 1]; sRGB-encoded; transparency laid over white.

    Raises BadImage if no image can be had from it, BadArgument if `source` is none of these things.
    """
    if isinstance(max_pixels, bool) or not isinstance(max_pixels, int) or max_pixels < 1:
        raise BadArgument(f"read_image: max_pixels must be a whole number of at least 1, got {max_pixels!r}")
    if isinstance(source, Image.Image):
        return _from_pil(source, "PIL image", max_pixels)
    if isinstance(source, bytes | bytearray | memoryview):
        return _from_stream(io.BytesIO(source), f"{len(source)} bytes", max_pixels)
    if isinstance(source, str | os.PathLike):
        return _from_path(os.fspath(source), max_pixels)
    if hasattr(source, "__array__") or hasattr(source, "__dlpack__"):
        return _from_array(source, max_pixels)
    raise BadArgument(
        f"read_image: wanted a path, encoded bytes, a PIL image or an array, got {type(source).__name__}"
    )


def write_image(path: str | Path, rgb: RGB, *, xmp: bytes | None = None, quality: int = 95) -> None:
    """Write (H, W, 3) uint8 RGB as PNG, JPEG or WebP, by the path's suffix; whole or not at all.

    xmp: an XMP packet to embed, at most 65502 bytes. quality: 1 to 100, of JPEG (4:4:4) and lossy WebP.
    Raises BadArgument, or WriteFailed if the file cannot be written; then nothing is left behind.
    """
    if not isinstance(path, str | Path):
        raise BadArgument(f"write_image: path must be a str or Path, got {type(path).__name__}")
    name, suffix = str(path), Path(path).suffix.lower()
    if suffix not in _WRITABLE:
        raise BadArgument(f"write_image: wanted a name ending in {', '.join(_WRITABLE)}, got {name!r}")
    data = encode_image(rgb, _WRITABLE[suffix], xmp=xmp, quality=quality)
    try:
        write_whole(name, data)
    except WriteFailed:
        raise
    except (OSError, ValueError) as error:  # a name that is too long or holds a null character
        raise WriteFailed(f"{name!r}: cannot be written ({error})") from error


def encode_image(rgb: RGB, kind: str, *, xmp: bytes | None = None, quality: int = 95) -> bytes:
    """Return the bytes of a PNG, JPEG or WEBP file (`kind`); arguments and errors as for `write_image`."""
    if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise BadArgument(f"write_image: rgb must be (H, W, 3) uint8, got {_described(rgb)}")
    if 0 in rgb.shape or max(rgb.shape) > _LONGEST_SIDE[kind]:
        raise BadArgument(f"write_image: {kind} sides are 1 to {_LONGEST_SIDE[kind]}, got {rgb.shape}")
    if isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100:
        raise BadArgument(f"write_image: quality must be a whole number from 1 to 100, got {quality!r}")
    if xmp is not None and (not isinstance(xmp, bytes) or len(xmp) > _LONGEST_XMP):
        came = f"{len(xmp)}" if isinstance(xmp, bytes) else type(xmp).__name__
        raise BadArgument(f"write_image: xmp must be at most {_LONGEST_XMP} bytes, got {came}")
    # zlib's level 3 takes half the time of Pillow's default 6 for files 9 % larger (768 px portraits).
    options: dict[str, Any] = {"compress_level": 3} if kind == "PNG" else {"quality": quality}
    if kind == "JPEG":
        options["subsampling"] = 0
    if xmp is not None and kind == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
    elif xmp is not None:
        options["xmp"] = xmp
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(stream, format=kind, **options)
    return stream.getvalue()


def _from_path(name: str | bytes, max_pixels: int) -> RGB:
    shown = os.fsdecode(name)
    try:
        # Opening a FIFO for reading would wait for a writer; with O_NONBLOCK it returns and is then refused.
        descriptor = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise BadImage(f"{shown!r}: cannot be opened ({reason})") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = "folder" if stat.S_ISDIR(mode) else "FIFO, socket or device"
        raise BadImage(f"{shown!r}: wanted an image file, got a {kind}")
    with os.fdopen(descriptor, "rb") as stream:
        return _from_stream(stream, repr(shown), max_pixels)


def _from_stream(stream: IO[bytes], shown: str, max_pixels: int) -> RGB:
    if not stream.read(1):
        raise BadImage(f"{shown}: empty, wanted an image")
    stream.seek(0)
    Image.init()
    formats = [name for name in READABLE if name in Image.OPEN]
    with _bad_image(shown), _no_size_warning():
        image = Image.open(stream, formats=formats)
    with image:
        return _from_pil(image, shown, max_pixels)


def _from_pil(image: Image.Image, shown: str, max_pixels: int) -> RGB:
    _check_size(*image.size, shown, max_pixels)
    with _bad_image(shown):
        image.load()
        orientation = None
        with suppress(Exception):  # a damaged EXIF block does not make the pixels unreadable
            orientation = _UPRIGHT.get(image.getexif().get(_ORIENTATION_TAG, 1))
        rgb = _to_rgb(image)
        if orientation is not None:
            rgb = rgb.transpose(orientation)
        return np.array(rgb, dtype=np.uint8, order="C")


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode of Pillow's to RGB in sRGB; transparency is laid over white."""
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image)
        if values.dtype.kind in "iu" and values.min() >= 0 and values.max() <= 65535:
            values = values.astype(np.uint16)  # 16-bit files may come as 32-bit or big-endian integers
        return Image.fromarray(_eight_bits(values)).convert("RGB")
    if image.mode in {"LA", "La", "PA", "RGBA", "RGBa"} or "transparency" in image.info:
        layer = image.convert("RGBA")
        flat = Image.new("RGB", image.size, (255, 255, 255))
        flat.paste(layer, mask=layer.getchannel("A"))
        flat.info.update(image.info)
        return _to_srgb(flat)
    return _to_srgb(image)


def _to_srgb(image: Image.Image) -> Image.Image:
    """Apply an embedded colour profile; pass over one that is damaged or does not fit, as browsers do."""
    profile = image.info.get("icc_profile") or b""
    if image.mode in {"RGB", "CMYK"} and 0 < len(profile) <= _LARGEST_PROFILE:
        with suppress(ImageCms.PyCMSError, OSError, ValueError, TypeError):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if image.mode == "RGB" and "srgb" in ImageCms.getProfileDescription(source).lower():
                return image
            target = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
            if converted is not None:
                return converted
    return image.convert("RGB")


def _from_array(source: Any, max_pixels: int) -> RGB:
    shown = type(source).__name__
    with _bad_image(shown):
        # Tensors: out of the gradient's graph and onto the CPU, without importing the library they come from.
        for step in ("detach", "cpu"):
            source = getattr(source, step)() if callable(getattr(source, step, None)) else source
        array = np.asarray(source) if hasattr(source, "__array__") else np.from_dlpack(source)
    if array.ndim == 2:
        array = array[:, :, None]
    channels = {1, 3, 4}
    if array.ndim == 3 and array.shape[2] not in channels and array.shape[0] in {1, 3}:
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[2] not in channels or 0 in array.shape:
        raise BadImage(f"{shown}: wanted (H, W, 3), (H, W, 4), (H, W, 1) or (H, W), got {_described(source)}")
    _check_size(array.shape[1], array.shape[0], shown, max_pixels)
    with _bad_image(shown):
        array = _eight_bits(array)
    if array.shape[2] == 4:
        alpha = array[:, :, 3:].astype(np.uint16)
        over_white = array[:, :, :3] * alpha + 255 * (255 - alpha)
        array = ((over_white + 127) // 255).astype(np.uint8)
    # Not ascontiguousarray: the result must be the caller's own, and one grey channel becomes three.
    return np.array(np.broadcast_to(array, (*array.shape[:2], 3)), dtype=np.uint8, order="C")


def _eight_bits(values: NDArray[Any]) -> RGB:
    """Scale uint8, uint16, or floats in [0, 1] to uint8."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        return np.asarray((values.astype(np.uint32) * 255 + 32767) // 65535, np.uint8)
    if values.dtype.kind == "f":
        if not np.all(np.isfinite(values)):
            raise BadImage("float values must be finite, got NaN or infinity")
        if values.min() < 0 or values.max() > 1:
            raise BadImage(f"float values must lie in [0, 1], got {values.min():g} to {values.max():g}")
        return np.asarray(np.round(values.astype(np.float32) * 255), np.uint8)
    raise BadImage(f"values must be uint8, uint16 or floats in [0, 1], got {values.dtype}")


def _check_size(width: int, height: int, shown: str, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise BadImage(f"{shown}: has no pixels ({width} x {height})")
    if width * height > max_pixels:
        raise BadImage(f"{shown}: {width} x {height} pixels, more than the {max_pixels} allowed")


def _described(value: object) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    return type(value).__name__ if shape is None else f"{tuple(shape)} {dtype}"


@contextmanager
def _bad_image(shown: str) -> Iterator[None]:
    """Turn what decoders raise on damaged data, which is almost anything, into BadImage."""
    try:
        yield
    except BadImage as error:
        raise BadImage(f"{shown}: {error}") from error
    except UnidentifiedImageError as error:
        raise BadImage(f"{shown}: not an image of a known format ({', '.join(READABLE)})") from error
    except Exception as error:
        raise BadImage(f"{shown}: cannot be decoded ({error or type(error).__name__})") from error


_warnings_lock = threading.Lock()  # the list of warning filters belongs to the whole process


@contextmanager
def _no_size_warning() -> Iterator[None]:
    """Keep Pillow from warning of images that are large but within this module's own limit."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield
