"""Writing what a generator made: images with their marking, a record beside each, a manifest, a sheet."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.atomic import destination
from fastface.cli import outputs
from fastface.cli.options import IMAGE_SUFFIXES
from fastface.contact_sheet import face_box, wrapped_sheet
from fastface.errors import BadArgument, NoFaceFound, WriteFailed
from fastface.images import write_image
from fastface.labels import LabelTable, table_suffix
from fastface.provenance import DIGITAL_SOURCE_TYPE, GENERATED_SOURCE_TYPE, xmp_packet
from fastface.version import package_version

if TYPE_CHECKING:
    from rich.progress import Progress

    from fastface.cli.report import Report
    from fastface.generators import Generator

Image = NDArray[np.uint8]

FORMAT: Final = "fastface-generated"
VERSION: Final = 1


class Outputs:
    """Where the pictures of one command go: a folder, or one image."""

    def __init__(
        self,
        output: Path,
        suffix: str,
        *,
        quality: int,
        marked: bool,
        overwrite: bool,
        single: bool,
        resume: bool = False,
    ) -> None:
        if overwrite and resume:
            raise BadArgument("--resume keeps what is there, --overwrite replaces it; give one")
        self.output, self.suffix, self.quality, self.marked = output, suffix, quality, marked
        self.overwrite, self.single, self.resume = overwrite, single, resume
        self.folder = output.parent if single else output
        self.manifest = None if single else output / f"manifest{table_suffix()}"
        self.records: list[dict[str, Any]] = []
        self.count, self.seconds = 0, 0.0

    def path(self, stem: str) -> Path:
        """The file of a picture."""
        return self.output if self.single else self.folder / f"{stem}{self.suffix}"

    def check(self, stems: list[str], source: Path | None = None) -> None:
        """Before any work: make the folder; refuse to replace what is not ours. ``BadArgument``,
        ``WriteFailed``."""
        if self.single:
            final = destination(self.output)
            if source is not None and source.exists() and final.exists() and final.samefile(source):
                raise BadArgument(f"{self.output}: is the input itself")
            beside = destination(outputs.sidecar(self.output))
            if beside.exists() and not self.overwrite and not _is_ours(beside):
                raise BadArgument(f"{beside}: exists and is no record of ours; move it away, or --overwrite")
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WriteFailed(f"{self.folder}: cannot be made ({error.strerror})") from None
        keep = self.overwrite or self.resume
        there = set() if keep else {entry.name for entry in self.folder.iterdir()}
        for stem in stems:
            if f"{stem}{self.suffix}" in there:
                raise BadArgument(f"{self.path(stem)} exists; --overwrite replaces it")

    def kept(self, stem: str, made: dict[str, Any]) -> dict[str, Any] | None:
        """With ``resume``, the record of a picture that an earlier run finished with the same settings."""
        path = self.path(stem)
        if not self.resume or not path.is_file():
            return None
        try:
            record = json.loads(outputs.sidecar(path).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        wanted = {**made, "format": FORMAT, "version": VERSION, "provenance": self.marked}
        same = isinstance(record, dict) and all(record.get(key) == value for key, value in wanted.items())
        return record if same else None

    @contextmanager
    def writing(self, report: Report, total: int, sheet: Path | None) -> Iterator[Writing]:
        """Write pictures inside the block; the manifest and the sheet appear at its end."""
        start = time.perf_counter()
        with report.progress("images") as progress:
            writing = Writing(self, progress, total, sheet is not None)
            if self.manifest is None:
                yield writing
            else:
                with LabelTable(self.manifest, keep_partial=True) as table:
                    writing.table = table
                    yield writing
        self.seconds = time.perf_counter() - start
        if sheet is not None and writing.tiles and writing.generator is not None:
            self.write_sheet(sheet, writing.tiles, writing.captions, writing.generator)

    def write_sheet(self, path: Path, tiles: list[Image], captions: list[str], generator: Generator) -> None:
        """A grid of pictures with a caption each, marked like them."""
        made = {"sheet_of": len(tiles), **about(generator)}
        xmp = xmp_packet(made, software(), _source_type(generator))
        write_image(path, wrapped_sheet(tiles, captions), xmp=xmp, quality=self.quality)

    def report(self, report: Report, generator: Generator) -> None:
        """Say what was made, for people and for machines."""
        rate = self.count / max(self.seconds, 1e-9)
        where = f"  manifest: {self.manifest.name}" if self.manifest else ""
        report.say(f"{self.output}  {self.count} image{'s' * (self.count != 1)} ({rate:.1f}/s){where}")
        report.result(
            {
                "output": str(self.output),
                "images": self.count,
                "manifest": str(self.manifest) if self.manifest else None,
                "provider": generator.provider,
                "seconds": round(self.seconds, 3),
                **({"record": self.records[0]} if self.single and self.records else {}),
            }
        )


class Writing:
    """What goes on inside ``Outputs.writing``."""

    def __init__(self, out: Outputs, progress: Progress, total: int, keep_tiles: bool) -> None:
        self._out, self._progress, self._keep = out, progress, keep_tiles
        self._bar = progress.add_task(out.output.name, total=total)
        self.table: LabelTable | None = None
        self.tiles: list[Image] = []
        self.captions: list[str] = []
        self.generator: Generator | None = None

    def add(
        self,
        stem: str,
        image: Image,
        made: dict[str, Any],
        generator: Generator,
        *,
        caption: str = "",
        photo: Image | None = None,
        seen: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Write one picture with its record, which also holds what was ``seen`` in it. Returns the record."""
        out, path = self._out, self._out.path(stem)
        made = {**made, **about(generator)}
        if photo is not None:
            made["photo_sha256"] = pixels_sha256(photo)
        xmp = xmp_packet(made, software(), _source_type(generator)) if out.marked else None
        write_image(path, image, xmp=xmp, quality=out.quality)
        record = {
            "format": FORMAT,
            "version": VERSION,
            "image": path.name,
            **made,
            "provider": generator.provider,
            "width_px": image.shape[1],
            "height_px": image.shape[0],
            "provenance": out.marked,
            **(seen or {}),
        }
        outputs.write_record(outputs.sidecar(path), record)
        if self.table is not None:
            self.table.append(table_row(record, self.table.path.suffix))
        if out.single:
            out.records.append(record)
        if self._keep:
            self.generator = generator
            self.tiles.append(image)
            self.captions.append(caption)
        out.count += 1
        self._progress.advance(self._bar)
        return record

    def keep(self, record: dict[str, Any]) -> None:
        """Enter a picture of an earlier run into the manifest."""
        if self.table is not None:
            self.table.append(table_row(record, self.table.path.suffix))
        self._progress.advance(self._bar)


def table_row(record: dict[str, Any], suffix: str) -> dict[str, Any]:
    """A record as a row of a table. Parquet's columns have one type, so that what was not seen is NaN or ""
    there; JSON has no NaN and keeps null."""
    if suffix != ".parquet" or record.get("face_found", True):
        return record
    row = dict(record)
    shapes = row.get("blendshapes") or {}
    row["blendshapes"] = dict.fromkeys(shapes, math.nan)
    row["seen_expression"] = ""
    row.update(dict.fromkeys(("seen_intensity", "valence", "arousal"), math.nan))
    row.update({f"landmarks{count}_px": np.full((count, 2), np.nan, np.float32) for count in (68, 478)})
    return row


def about(generator: Generator) -> dict[str, Any]:
    """What every picture of a generator says of it."""
    return {
        "generator": generator.kind,
        "checkpoint_sha256": str(generator.metadata.get("checkpoint_sha256", "")),
        "engine_version": package_version(),
    }


def software() -> str:
    """The program as XMP names it."""
    return f"fastface {package_version()}"


def checked_suffix(name: str) -> str:
    """ "png" → ".png". Raises ``BadArgument``."""
    suffix = "." + name.removeprefix(".").casefold()
    if suffix not in IMAGE_SUFFIXES:
        raise BadArgument(f"--format is png, jpg or webp, got {name!r:.20}")
    return suffix


def pixels_sha256(image: Image) -> str:
    """SHA-256 of an image's shape and pixels, in hex."""
    return hashlib.sha256(str(image.shape).encode() + image.tobytes()).hexdigest()


def face_square(photo: Image, side_px: int, *, face: bool) -> Image:
    """The head's square of a photo, or its middle one, as (side, side, 3) uint8. Raises ``NoFaceFound``."""
    import cv2

    height, width = photo.shape[:2]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    right, bottom = left + side, top + side
    if face:
        from fastface.landmarks import LandmarkDetector

        found = LandmarkDetector().detect(photo)
        if not found:
            raise NoFaceFound("no face in the photo; --no-face takes its middle square instead")
        left, top, right, bottom = face_box(found[0].points_px, height, width)
    part = np.ascontiguousarray(photo[top:bottom, left:right])
    way = cv2.INTER_AREA if part.shape[0] > side_px else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(part, (side_px, side_px), interpolation=way), np.uint8)


def _is_ours(path: Path) -> bool:
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and record.get("format") == FORMAT


def _source_type(generator: Generator) -> str:
    """Faces of seeds are a model's throughout; a translated photo is a composite."""
    return GENERATED_SOURCE_TYPE if generator.kind.startswith("stylegan") else DIGITAL_SOURCE_TYPE
