"""What the commands on latents share: where latents come from, and where the pictures of them go."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastface.cli import options as opt
from fastface.cli.generate import open_generator
from fastface.cli.report import Report
from fastface.errors import BadArgument, BadModelFile

if TYPE_CHECKING:
    from fastface.generators import StyleGAN
    from fastface.generators.latents import Floats, Latent
    from fastface.generators.stylegan import NoiseMaps


@dataclass(frozen=True)
class Picture:
    """One picture to make. stem: of its file in a folder. made: of its record, plain JSON data."""

    stem: str
    w: Floats
    made: dict[str, Any]
    caption: str = ""


@dataclass(frozen=True)
class Way:
    """How pictures are written."""

    output: Path
    quality: int = 92
    marked: bool = True
    overwrite: bool = False
    resume: bool = False
    format: str = "png"
    sheet: Path | None = None
    measure: bool = True
    batch: int = 8
    fps: float = 30.0
    noise: str = "own"

    @property
    def video(self) -> bool:
        """Whether the output is a video."""
        from fastface.video import FORMATS as VIDEO_FORMATS

        return self.output.suffix.casefold() in VIDEO_FORMATS

    @property
    def single(self) -> bool:
        """Whether the output is one image."""
        return self.output.suffix.casefold() in opt.IMAGE_SUFFIXES

    def check(self, count: int) -> None:
        """Before any work: do the options fit each other? ``BadArgument``."""
        from fastface.cli.tiles import check_sheet
        from fastface.provenance import require_marking

        require_marking(self.marked, dataset=not (self.single or self.video))
        if self.single and count != 1:
            raise BadArgument(
                f"{self.output}: one image, but {count} are asked for; give a folder or a video"
            )
        if self.video and (self.resume or self.sheet):
            raise BadArgument(f"{self.output}: --resume and --sheet are for folders")
        if self.sheet is not None:
            check_sheet(self.sheet, count, self.output.parent if self.single else self.output)
        if self.noise not in ("own", "const", "none"):
            raise BadArgument(f"--noise is own, const or none, got {self.noise!r:.20}")


def open_stylegan(
    net: Path, provider: list[str] | None, precision: str | None, threads: int | None, batch: int
) -> StyleGAN:
    """The generator that the options ask for; ``BadModelFile`` when it has no latents."""
    from fastface.generators import StyleGAN

    generator = open_generator(net, provider, precision, threads, batch)
    if not isinstance(generator, StyleGAN):
        raise BadModelFile(f"{net}: a {generator.kind} has no latents; wanted a StyleGAN2 or StyleGAN3")
    return generator


def open_latent(source: str, generator: StyleGAN, truncation: float) -> Latent:
    """The latent of a file or of ``seed:N``, checked against the generator. ``BadModelFile``,
    ``BadArgument``."""
    from fastface.generators.latents import Latent
    from fastface.generators.portraits import check_fit, latent_of_seed

    match = re.fullmatch(r"seed:(\d{1,10})", source)
    if match:
        return latent_of_seed(generator, int(match[1]), truncation)
    if Path(source).suffix.casefold() != ".npz":
        raise BadArgument(f"{source}: a latent is a .npz file or seed:N")
    latent = Latent.load(source)
    check_fit(latent, generator, source)
    return latent


def name_of(source: str) -> str:
    """A short name of a latent for files and tables: its file's stem, or seed0007."""
    match = re.fullmatch(r"seed:(\d{1,10})", source)
    return f"seed{int(match[1]):04d}" if match else Path(source).stem


def noise_of(latent: Latent, way: Way) -> NoiseMaps | str:
    """What ``--noise`` asks for, of this latent."""
    if way.noise != "own":
        return way.noise
    return latent.noise or "const"


def save_latent(path: Path | None, w: Floats, base: Latent, made: dict[str, Any]) -> None:
    """Write a latent that came of another one, with that one's noise. Nothing without a path."""
    from fastface.generators.latents import Latent

    if path is not None:
        Latent(w, base.generator_sha256, made, base.noise).save(path)


def write_pictures(
    report: Report,
    generator: StyleGAN,
    pictures: Callable[[], Iterable[Picture]],
    count: int,
    noise: NoiseMaps | str,
    way: Way,
    each: Callable[[dict[str, Any]], object] = lambda _: None,
) -> None:
    """Make the pictures and write them with their records, in flat memory.

    pictures: gives them anew at each call, ``count`` of them. each: is handed every record.
    """
    from fastface.cli import generated

    way.check(count)
    faces = _Faces(each)
    if way.video:
        _write_video(report, generator, pictures, count, noise, way, faces)
        return
    suffix = way.output.suffix if way.single else generated.checked_suffix(way.format)
    out = generated.Outputs(
        way.output,
        suffix,
        quality=way.quality,
        marked=way.marked,
        overwrite=way.overwrite,
        single=way.single,
        resume=way.resume and not way.single,
    )
    out.check([] if way.overwrite or way.resume else [picture.stem for picture in pictures()])
    said, look = _said(noise), _detector(way)
    with out.writing(report, count, way.sheet) as writing:
        for chunk in _chunks(pictures(), way.batch):
            kept = {}
            for picture in chunk:
                record = out.kept(picture.stem, {**_made(picture, said), **generated.about(generator)})
                if record is not None and (not way.measure or "face_found" in record):
                    kept[picture.stem] = record
            todo = [picture for picture in chunk if picture.stem not in kept]
            images = dict(zip((p.stem for p in todo), _images(generator, todo, noise), strict=True))
            for picture in chunk:
                if picture.stem in kept:
                    writing.keep(kept[picture.stem])
                    faces.add(kept[picture.stem])
                    continue
                image = images[picture.stem]
                record = writing.add(
                    picture.stem,
                    image,
                    _made(picture, said),
                    generator,
                    caption=picture.caption,
                    seen=look(image),
                )
                faces.add(record)
    faces.tell(report)
    out.report(report, generator)


def _write_video(
    report: Report,
    generator: StyleGAN,
    pictures: Callable[[], Iterable[Picture]],
    count: int,
    noise: NoiseMaps | str,
    way: Way,
    faces: _Faces,
) -> None:
    from fastface.atomic import destination
    from fastface.cli import generated
    from fastface.cli.outputs import sidecar
    from fastface.labels import LabelTable, table_suffix
    from fastface.provenance import GENERATED_SOURCE_TYPE, xmp_packet
    from fastface.video import VideoWriter

    table_path = sidecar(way.output, table_suffix())
    for path in (way.output, table_path):
        destination(path)
        if path.exists() and not way.overwrite:
            raise BadArgument(f"{path} exists; --overwrite replaces it")
    said, look = _said(noise), _detector(way)
    made = {
        **_shared(next(iter(pictures())).made),
        "frames": count,
        "fps": way.fps,
        **generated.about(generator),
    }
    xmp = xmp_packet(made, generated.software(), GENERATED_SOURCE_TYPE)
    with (
        report.progress("frames") as progress,
        LabelTable(table_path) as table,
        VideoWriter(way.output, way.fps, xmp=xmp, quality=way.quality) as writer,
    ):
        bar = progress.add_task(way.output.name, total=count)
        frame = 0
        for chunk in _chunks(pictures(), way.batch):
            for picture, image in zip(chunk, _images(generator, chunk, noise), strict=True):
                writer.write(image)
                record = {
                    "format": generated.FORMAT,
                    "version": generated.VERSION,
                    "image": way.output.name,
                    "frame": frame,
                    "time_s": round(frame / way.fps, 6),
                    **_made(picture, said),
                    **generated.about(generator),
                    "provider": generator.provider,
                    "width_px": image.shape[1],
                    "height_px": image.shape[0],
                    "provenance": True,
                    **(look(image) or {}),
                }
                table.append(generated.table_row(record, table_path.suffix))
                faces.add(record)
                frame += 1
                progress.advance(bar)
    faces.tell(report)
    report.say(f"{way.output}  {count} frames at {way.fps:g} fps  labels: {table_path.name}")
    report.result({"video": str(way.output), "labels": str(table_path), "frames": count, "fps": way.fps})


def _shared(made: dict[str, Any]) -> dict[str, Any]:
    """Of the first frame's record, what does not belong to that frame alone."""
    alone = ("intensity", "strengths", "w_sha256")
    return {key: value for key, value in made.items() if key not in alone}


def _made(picture: Picture, noise: str) -> dict[str, Any]:
    from fastface.generators.portraits import w_digest

    return {**picture.made, "noise": noise, "w_sha256": w_digest(picture.w)}


def _images(generator: StyleGAN, pictures: Sequence[Picture], noise: NoiseMaps | str) -> Any:
    import numpy as np

    if not pictures:
        return []
    return generator.synthesize(np.stack([picture.w for picture in pictures]), noise)  # type: ignore[arg-type]


def _chunks(pictures: Iterable[Picture], batch: int) -> Iterable[list[Picture]]:
    iterator = iter(pictures)
    while chunk := list(islice(iterator, batch)):
        yield chunk


def _detector(way: Way) -> Any:
    if not way.measure:
        return lambda _: None
    from fastface.generators.portraits import seen
    from fastface.landmarks import LandmarkDetector

    detector = LandmarkDetector()
    return lambda image: seen(detector, image)


def _said(noise: NoiseMaps | str) -> str:
    return noise if isinstance(noise, str) else "own"


class _Faces:
    """Counts in how many pictures a face was found, and hands their records on."""

    def __init__(self, each: Callable[[dict[str, Any]], object]) -> None:
        self._each = each
        self._looked = self._missed = 0

    def add(self, record: dict[str, Any]) -> None:
        if "face_found" in record:
            self._looked += 1
            self._missed += not record["face_found"]
        self._each(record)

    def tell(self, report: Report) -> None:
        if self._missed:
            report.warn(f"no face was found in {self._missed} of {self._looked} images; their labels say so")


__all__ = ["Picture", "Way", "open_latent", "open_stylegan", "save_latent", "write_pictures"]
