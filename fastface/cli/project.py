"""``fastface project``: the latent of a photo."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastface.cli import options as opt
from fastface.cli.report import Report, running
from fastface.errors import BadArgument, BadModelFile, NoFaceFound

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fastface.exports.inversion import Projection, Settings

FIT = "How to fit"


def project(
    photo: Annotated[Path, typer.Argument(help="A photo of a face.", show_default=False)],
    generator: Annotated[
        Path,
        typer.Option(
            "--generator",
            "-g",
            metavar="net.safetensors",
            help="The checkpoint, as published or converted: gradients are needed, so no ONNX.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="face.npz", help="The latent.", show_default=False)
    ],
    space: Annotated[
        str,
        typer.Option(metavar="w|w+", help="w edits best, w+ looks most alike.", rich_help_panel=FIT),
    ] = "w",
    steps: Annotated[int, typer.Option(min=1, max=1_000_000, rich_help_panel=FIT)] = 1000,
    seed: Annotated[
        int, typer.Option(min=0, max=(1 << 32) - 1, help="Same seed, same latent.", rich_help_panel=FIT)
    ] = 0,
    fit_noise: Annotated[
        bool,
        typer.Option(
            "--fit-noise",
            help="Fit noise maps too; to be shown by a graph exported with --noise random.",
            rich_help_panel=FIT,
        ),
    ] = False,
    features: Annotated[
        str,
        typer.Option(
            metavar="none|landmarks|net.onnx",
            help="Network whose features are compared besides pixels.",
            rich_help_panel=FIT,
        ),
    ] = "landmarks",
    feature_weight: Annotated[float, typer.Option(min=0, rich_help_panel=FIT)] = 0.05,
    learning_rate: Annotated[float, typer.Option(min=0, max=10, rich_help_panel=FIT)] = 0.1,
    label: opt.LabelOption = None,
    align: Annotated[
        bool,
        typer.Option("--align/--no-align", help="Cut out the face as in FFHQ; else the middle square."),
    ] = True,
    image: Annotated[
        Path | None, typer.Option(help="Write what the latent shows.", show_default=False)
    ] = None,
    aligned: Annotated[
        Path | None, typer.Option(help="Write the square that is projected.", show_default=False)
    ] = None,
    save_every: Annotated[int, typer.Option(min=1, help="Steps between two savings of the state.")] = 50,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run was interrupted.")] = False,
    overwrite: opt.OverwriteOption = False,
    device: opt.DeviceOption = opt.Device.CPU,
    threads: opt.ThreadsOption = None,
    quality: opt.QualityOption = 92,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """Find the latent whose image is nearest to a photo (Karras et al. 2020, appendix D).

    An interrupted run keeps its state beside the output; with --resume it ends as if it had never stopped.
    """
    with running(as_json=as_json, debug=debug) as report:
        from fastface.atomic import destination
        from fastface.cli.generate import parse_numbers
        from fastface.cli.generators import require_export
        from fastface.images import write_image

        for path, suffixes in (
            (output, (".npz",)),
            (image, opt.IMAGE_SUFFIXES),
            (aligned, opt.IMAGE_SUFFIXES),
        ):
            if path is not None and path.suffix.casefold() not in suffixes:
                raise BadArgument(f"{path}: the name must end in one of {', '.join(suffixes)}")
            if path is not None and destination(path).exists() and not (overwrite or resume):
                raise BadArgument(f"{path} exists; --overwrite replaces it")
        if resume and overwrite:
            raise BadArgument("--resume goes on with what is there, --overwrite replaces it; give one")
        if resume and output.exists() and not state_path(output).exists():
            raise BadArgument(f"{output}: is finished; --overwrite projects anew")
        require_export()
        from fastface.exports.inversion import Settings

        settings = Settings(
            space=space,
            steps=steps,
            seed=seed,
            learning_rate=learning_rate,
            feature_weight=feature_weight,
            fit_noise=fit_noise,
            label=tuple(parse_numbers(label, "--label") or ()),
        )
        settings.check()
        run = _projection(photo, generator, settings, features, device, threads, align=align)
        if aligned is not None:
            write_image(aligned, run.target_image, quality=quality)  # part of the photo: not synthetic
        _run(report, run, output, save_every, resume=resume, overwrite=overwrite)
        found = run.latent()
        found.save(output)
        if image is not None:
            _write_shown(image, run, quality)
        with suppress(OSError):
            state_path(output).unlink()
        psnr = run.psnr_db()
        report.say(f"{output}  {space}, {run.state.step} steps, PSNR {psnr:.1f} dB")
        report.result(
            {
                "latent": str(output),
                "space": space,
                "steps": run.state.step,
                "psnr_db": round(psnr, 3),
                "latent_sha256": found.digest,
                "checkpoint_sha256": found.generator_sha256,
            }
        )


def state_path(output: Path) -> Path:
    """Where an unfinished run is kept: face.npz → face.state.npz."""
    return output.with_name(output.stem + ".state.npz")


def _projection(
    photo: Path,
    checkpoint: Path,
    settings: Settings,
    features: str,
    device: opt.Device,
    threads: int | None,
    *,
    align: bool,
) -> Projection:
    import torch

    from fastface.checkpoints import read_checkpoint
    from fastface.errors import ProviderUnavailable
    from fastface.exports.inversion import Projection

    if checkpoint.suffix.casefold() in (".onnx", ".plan") or not checkpoint.exists():
        beside = [checkpoint.with_suffix(suffix).name for suffix in (".safetensors", ".pkl")]
        raise BadModelFile(
            f"{checkpoint}: projection needs gradients and so the checkpoint ({', '.join(beside)}, …), "
            "not a graph exported from it"
            if checkpoint.suffix.casefold() in (".onnx", ".plan")
            else f"{checkpoint}: no such file"
        )
    if threads is not None:
        torch.set_num_threads(threads)
    there = torch.cuda.is_available()
    if device is opt.Device.CUDA and not there:
        raise ProviderUnavailable("device cuda: this torch sees no GPU; use --device cpu")
    where = "cuda" if there and device is not opt.Device.CPU else "cpu"
    read = read_checkpoint(checkpoint)
    network = network_of(read)
    square = face_square(photo, int(network.config.resolution), align=align)
    compared, name = None, ""
    if features != "none":
        from fastface.exports.onnx_features import OnnxFeatures

        path, _, taps = features.partition("#")
        compared = OnnxFeatures(path, tuple(filter(None, taps.split(","))), where)
        name = compared.name
    return Projection(
        network, square, read.sha256, settings, features=compared, features_name=name, device=where
    )


def network_of(checkpoint: Any) -> Any:
    """The torch definition of a StyleGAN's checkpoint with its weights. Raises ``BadModelFile``."""
    from importlib import import_module

    if checkpoint.kind not in ("stylegan2", "stylegan3"):
        raise BadModelFile(
            f"{checkpoint.source}: wanted a StyleGAN2 or StyleGAN3, got {checkpoint.kind or 'something else'}"
        )
    return import_module(f"fastface.exports.{checkpoint.kind}").generator(checkpoint)


def face_square(photo: Path, side_px: int, *, align: bool) -> NDArray[np.uint8]:
    """The square of a photo that is projected, (side, side, 3) uint8: turned and cut as in FFHQ (Karras et
    al. 2018, appendix C), or the middle one. Raises ``BadImage``, ``NoFaceFound``."""
    import cv2
    import numpy as np

    from fastface.images import read_image

    rgb = read_image(photo)
    if not align:
        side = min(rgb.shape[:2])
        top, left = ((length - side) // 2 for length in rgb.shape[:2])
        square = np.ascontiguousarray(rgb[top : top + side, left : left + side])
        way = cv2.INTER_AREA if side > side_px else cv2.INTER_CUBIC
        return (
            square if side == side_px else np.asarray(cv2.resize(square, (side_px,) * 2, interpolation=way))
        )
    from fastface.alignment import celeba_square, crop
    from fastface.landmarks import LandmarkDetector

    found = LandmarkDetector().detect(rgb)
    if not found:
        raise NoFaceFound(
            f"{photo}: no face; --no-align projects the middle square of a photo that is cropped already"
        )
    return crop(rgb, celeba_square(np.asarray(found[0].points_px, np.float64)), side_px)


def _run(
    report: Report, run: Projection, output: Path, save_every: int, *, resume: bool, overwrite: bool
) -> None:
    """All steps that are left. The state is saved at intervals and when the run is interrupted."""
    state = state_path(output)
    if state.exists() and resume:
        run.load_state(state)
        report.say(f"going on at step {run.state.step}")
    elif state.exists() and not overwrite:
        raise BadArgument(f"{state}: an unfinished run; --resume goes on with it, --overwrite begins anew")
    saved = run.state.step
    with report.progress("steps") as progress:
        bar = progress.add_task(output.name, total=run.settings.steps, completed=saved)
        try:
            while not run.done:
                told = run.step()
                progress.update(bar, completed=told.step, description=f"{output.name}  {told.psnr_db:.1f} dB")
                if told.step % save_every == 0 and not run.done:
                    run.save_state(state)
                    saved = told.step
        finally:
            # After an error or Ctrl-C as well: the state is always that after a whole step.
            if run.state.step > saved:
                run.save_state(state)


def _write_shown(path: Path, run: Projection, quality: int) -> None:
    from fastface.cli.generated import software
    from fastface.images import write_image
    from fastface.provenance import GENERATED_SOURCE_TYPE, xmp_packet

    made = {"made": "projection", "checkpoint_sha256": run.generator_sha256, "steps": run.state.step}
    xmp = xmp_packet(made, software(), GENERATED_SOURCE_TYPE)
    write_image(path, run.image(), xmp=xmp, quality=quality)
