"""``fastface convert``, ``fastface export stylegan2 …`` and ``fastface verify``: checkpoints in, ONNX out."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from fastface.cli import options as opt
from fastface.cli.engines import TensorRtOption, build_all
from fastface.cli.report import Report, running


class Kind(StrEnum):
    """The generators that are known."""

    STYLEGAN2 = "stylegan2"
    STYLEGAN3 = "stylegan3"
    STARGANV2 = "starganv2"
    STARGAN = "stargan"
    GANIMATION = "ganimation"


class Precision(StrEnum):
    """What a graph computes in; its inputs and outputs are float32 all the same."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"


class Noise(StrEnum):
    """Where the noise of a StyleGAN2 comes from."""

    CONST = "const"
    RANDOM = "random"
    NONE = "none"


class Statistics(StrEnum):
    """What a StarGAN's instance normalisation uses."""

    INSTANCE = "instance"
    RUNNING = "running"


CheckpointArgument = Annotated[
    Path,
    typer.Argument(
        help="As its authors publish it (.pkl .pt .pth .ckpt), or a .safetensors of convert.",
        show_default=False,
    ),
]
GraphOption = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="net.onnx", help="Parts go beside: net.mapping.onnx …"),
]
PrecisionOption = Annotated[Precision, typer.Option(help="What it computes in.", case_sensitive=False)]
ResolutionOption = Annotated[int, typer.Option(min=16, max=1024, help="Side of the images, in pixels.")]


def convert(
    checkpoint: CheckpointArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="model.safetensors", show_default=False)],
    kind: Annotated[Kind | None, typer.Option(help="When the file alone does not tell.")] = None,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """Turn a published checkpoint into a .safetensors, once; nothing in it is run.

    From then on neither the original nor its authors' code is needed.
    """
    with running(as_json=as_json, debug=debug) as report:
        from fastface.checkpoints import read_checkpoint, write_checkpoint
        from fastface.errors import BadArgument, BadModelFile

        if output.suffix != ".safetensors":
            raise BadArgument(f"{output}: wanted a name that ends in .safetensors")
        read = read_checkpoint(checkpoint, kind.value if kind else None)
        if read.kind is None:
            raise BadModelFile(f"{checkpoint}: which generator this is cannot be told; say --kind")
        write_checkpoint(read, output)
        size = sum(tensor.nbytes for tensor in read.tensors.values())
        report.say(f"{output}  {read.kind}, {len(read.tensors)} tensors, {size / 1e6:.1f} MB")
        report.result(
            {
                "file": str(output),
                "kind": read.kind,
                "tensors": len(read.tensors),
                "bytes": size,
                "config": read.config,
                "checkpoint_sha256": read.sha256,
            }
        )


def export_stylegan2(
    checkpoint: CheckpointArgument,
    output: GraphOption,
    precision: PrecisionOption = Precision.FP32,
    noise: Annotated[
        Noise, typer.Option(help="The checkpoint's own, inputs of the graph, or none.", case_sensitive=False)
    ] = Noise.CONST,
    cutoff: Annotated[
        int | None, typer.Option(min=0, help="Truncation acts on so many layers; on all by default.")
    ] = None,
    tensorrt: TensorRtOption = None,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """StyleGAN2: net.mapping.onnx (z → w) and net.synthesis.onnx (w → image)."""
    with running(as_json=as_json, debug=debug) as report:
        write_graphs(
            report, Kind.STYLEGAN2, checkpoint, output, precision, tensorrt, noise=noise.value, cutoff=cutoff
        )


def export_stylegan3(
    checkpoint: CheckpointArgument,
    output: GraphOption,
    precision: PrecisionOption = Precision.FP32,
    cutoff: Annotated[
        int | None, typer.Option(min=0, help="Truncation acts on so many layers; on all by default.")
    ] = None,
    tensorrt: TensorRtOption = None,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """StyleGAN3, T or R: net.mapping.onnx (z → w) and net.synthesis.onnx (w → image)."""
    with running(as_json=as_json, debug=debug) as report:
        write_graphs(report, Kind.STYLEGAN3, checkpoint, output, precision, tensorrt, cutoff=cutoff)


def export_starganv2(
    checkpoint: CheckpointArgument,
    output: GraphOption,
    precision: PrecisionOption = Precision.FP32,
    w_hpf: Annotated[
        float | None, typer.Option(help="Weight of the high-pass path in training, where it was not 1.")
    ] = None,
    tensorrt: TensorRtOption = None,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """StarGAN v2: generator, style encoder, mapping network; landmark network for the high-pass path."""
    with running(as_json=as_json, debug=debug) as report:
        write_graphs(report, Kind.STARGANV2, checkpoint, output, precision, tensorrt, w_hpf=w_hpf)


def export_stargan(
    checkpoint: CheckpointArgument,
    output: GraphOption,
    precision: PrecisionOption = Precision.FP32,
    resolution: ResolutionOption = 128,
    statistics: Annotated[Statistics, typer.Option(case_sensitive=False)] = Statistics.INSTANCE,
    tensorrt: TensorRtOption = None,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """StarGAN: net.generator.onnx (image, label → image)."""
    with running(as_json=as_json, debug=debug) as report:
        chosen = {"resolution": resolution, "statistics": statistics.value}
        write_graphs(report, Kind.STARGAN, checkpoint, output, precision, tensorrt, **chosen)


def export_ganimation(
    checkpoint: CheckpointArgument,
    output: GraphOption,
    precision: PrecisionOption = Precision.FP32,
    resolution: ResolutionOption = 128,
    saturate_mask: Annotated[
        bool, typer.Option("--saturate-mask", help="Sharpen the attention, as the authors' demo may.")
    ] = False,
    tensorrt: TensorRtOption = None,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """GANimation: net.generator.onnx (image, action units → image, attention, colour)."""
    with running(as_json=as_json, debug=debug) as report:
        chosen = {"resolution": resolution, "saturate_mask": saturate_mask}
        write_graphs(report, Kind.GANIMATION, checkpoint, output, precision, tensorrt, **chosen)


def write_graphs(
    report: Report,
    kind: Kind,
    checkpoint: Path,
    output: Path,
    precision: Precision,
    tensorrt: Path | None,
    **options: Any,
) -> None:
    """Export a checkpoint and say what was written."""
    from fastface.checkpoints import read_checkpoint

    require_export()
    from fastface.exports.generator_files import export_generator
    from fastface.exports.graphs import file_sha256

    read = read_checkpoint(checkpoint, kind.value)
    written = export_generator(read, output, precision.value, **options)
    for path in written:
        report.say(f"{path}  {precision.value}, {path.stat().st_size / 1e6:.1f} MB")
    engines = [] if tensorrt is None else build_all(report, output, tensorrt)
    report.result(
        {
            "kind": kind.value,
            "precision": precision.value,
            "checkpoint_sha256": read.sha256,
            "files": [{"file": str(path), "sha256": file_sha256(path)} for path in written],
            "engines": engines,
        }
    )


def verify(
    net: Annotated[
        Path, typer.Argument(help="An .onnx file, or the name given to export.", show_default=False)
    ],
    checkpoint: Annotated[
        Path, typer.Option("--checkpoint", "-c", help="What it was exported from.", show_default=False)
    ],
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """Compare exported graphs with the generator's plain definition on the same weights; print the worst
    error.

    Exit code 1 when an error is larger than the precision explains (fp32: 0.001).
    """
    with running(as_json=as_json, debug=debug) as report:
        from fastface.checkpoints import read_checkpoint

        require_export()
        from fastface.exports.generator_files import generator_files, verify_generator, within
        from fastface.exports.graphs import read_metadata

        kind = read_metadata(generator_files(net)[0]).get("kind")
        found = verify_generator(net, read_checkpoint(checkpoint, str(kind)))
        for path, precision, seen in found:
            verdict = "ok" if within(precision, seen) else "TOO LARGE"
            report.say(
                f"{path}  {seen.output}  worst error {seen.worst:.2e} of {seen.scale:.2f}  "
                f"{precision}, {seen.provider}  {verdict}"
            )
        fine = all(within(precision, seen) for _, precision, seen in found)
        report.result(
            {
                "ok": fine,
                "outputs": [
                    {
                        "file": str(path),
                        "output": seen.output,
                        "worst": seen.worst,
                        "scale": seen.scale,
                        "precision": precision,
                        "provider": seen.provider,
                    }
                    for path, precision, seen in found
                ],
            }
        )
        if not fine:
            raise typer.Exit(1)


def require_export() -> None:
    """Raises ``ProviderUnavailable`` when the extra that exporting needs is not installed."""
    from importlib.util import find_spec

    from fastface.errors import ProviderUnavailable

    missing = [name for name in ("torch", "onnx") if find_spec(name) is None]
    if missing:
        raise ProviderUnavailable(f"{' and '.join(missing)} not installed: pip install 'fastface[export]'")
