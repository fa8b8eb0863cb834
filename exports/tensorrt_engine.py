"""TensorRT engines from ONNX files: ``net.plan`` with its record ``net.plan.json`` beside it.

Networks are strongly typed: an fp16 engine comes from a file exported in fp16, whose own casts say what
stays float32; TensorRT chooses no precision by itself. The batch may vary within the profile.

The full TensorRT builds for the GPU that is there. ``tensorrt_rtx``, the same family's library for GeForce
and RTX devices, builds without any, for the architectures it is told.

A renderer's graph (``fastface export renderer --for tensorrt``) has fastface's plug-ins in it, kernels that
the engine then holds. That takes the full TensorRT. What is float32 there is computed in float32, not in
TF32.

A build runs in a process of its own, because a parser or builder that meets a bad graph may abort. An engine
whose record still fits GPU, TensorRT version, model, plug-ins and batch is kept; else it is built anew,
saying why.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

from fastface.atomic import destination, whole_file, write_whole
from fastface.errors import BadArgument, BadModelFile, ProviderUnavailable
from fastface.onnx_ops import DOMAIN, PLUGIN_DOMAIN
from fastface.runtime import cuda_driver
from fastface.runtime.onnx_file import OnnxFile, scan
from fastface.runtime.plan import PlanRecord, checked_plan, model_sha256, record_path
from fastface.runtime.tensorrt_engine import MODULES, load_library

#: What tensorrt_rtx builds for when there is no GPU and nobody says. It has no float32 matrix product for
#: Turing, SM75: ask for that with a file exported in fp16.
TARGETS: Final = ("SM80", "SM86", "SM89", "SM120")
BATCH: Final = (1, 4, 16)
#: The module of the plug-ins of ``PLUGIN_DOMAIN``.
PLUGINS: Final = "fastface.exports.tensorrt_plugins"
_TIMEOUT_S: Final = 3 * 3600


@dataclass(frozen=True)
class Built:
    """An engine. ``reasons``: why it was built, [] when the one that was there was kept."""

    plan: Path
    record: PlanRecord
    reasons: list[str]
    seconds: float


def build_engine(
    model: str | Path,
    output: str | Path,
    *,
    batch: tuple[int, int, int] = BATCH,
    library: str | None = None,
    targets: Sequence[str] = (),
    plugins: Sequence[str] = (),
    force: bool = False,
) -> Built:
    """Make an engine of an ONNX file, unless the one at ``output`` is that engine already.

    batch: smallest, usual and largest B. library: "tensorrt" or "tensorrt_rtx"; by default the first that is
    installed. targets: such as "SM89", for tensorrt_rtx. plugins: Python modules that register operators when
    imported, beside fastface's own. Raises ``BadModelFile``, ``BadArgument``, ``ProviderUnavailable``,
    ``WriteFailed``.
    """
    plan = _checked_output(Path(output))
    graph = scan(model)
    _check_batch(batch)
    _check_inputs(graph)
    plugins = _plugins(graph, plugins)
    wanted = _wanted(graph, batch, _place(library, targets, plugins), plugins)
    reasons = ["asked to"] if force else _reasons(plan, wanted)
    if not reasons:
        return Built(plan, checked_plan(plan)[0], [], 0.0)
    start = time.perf_counter()
    cache = _timing_cache(wanted)
    with whole_file(plan) as temporary:
        _in_process(
            {
                "job": "build",
                "library": wanted.library,
                "model": str(Path(model).resolve()),
                "output": str(temporary),
                "batch": list(batch),
                "inputs": {name: list(spec.shape) for name, spec in graph.inputs.items()},
                "targets": wanted.targets,
                "plugins": plugins,
                "timing_cache": str(cache),
            },
            str(model),
        )
        digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
    record = replace(wanted, plan_sha256=digest)
    record.write(plan)
    return Built(plan, record, reasons, time.perf_counter() - start)


def build_generator(net: str | Path, output: str | Path, **how: Any) -> list[Built]:
    """Engines of all parts of a generator: net.onnx, out.plan → out.mapping.plan, out.synthesis.plan …"""
    from fastface.generators.parts import Parts

    output = _checked_output(Path(output))
    stem = output.name[: -len(output.suffix)]
    files = Parts(net).files
    return [
        build_engine(file, output.with_name(f"{stem}.{part}.plan"), **how) for part, file in files.items()
    ]


def check_renderer(output: str | Path, batch: tuple[int, int, int] = BATCH) -> None:
    """Raise what ``build_engine`` would of a renderer's graph here, before there is one."""
    _checked_output(Path(output))
    _check_batch(batch)
    _place(None, (), [PLUGINS])


def _checked_output(plan: Path) -> Path:
    if plan.suffix.casefold() != ".plan":
        raise BadArgument(f"{plan}: an engine's name ends in .plan")
    destination(record_path(destination(plan)))
    return plan


def _check_batch(batch: tuple[int, int, int]) -> None:
    if len(batch) != 3 or not 1 <= batch[0] <= batch[1] <= batch[2] <= 4096:
        raise BadArgument(f"batch: wanted smallest ≤ usual ≤ largest, each 1 … 4096, got {batch!r:.40}")


def _check_inputs(graph: OnnxFile) -> None:
    for name, spec in graph.inputs.items():
        if any(isinstance(size, str) for size in spec.shape[1:]):
            raise BadModelFile(f"{graph.path}: {name} {spec}: only the first dimension may vary")


def _plugins(graph: OnnxFile, given: Sequence[str]) -> list[str]:
    """The modules that a graph's operators come from."""
    if DOMAIN in graph.domains:
        raise BadModelFile(
            f"{graph.path}: its operators {graph.domains[DOMAIN]} … are ONNX Runtime's; "
            "export it with --for tensorrt"
        )
    ours = [PLUGINS] if PLUGIN_DOMAIN in graph.domains else []
    for domain, operator in graph.domains.items():
        if domain != PLUGIN_DOMAIN and not given:
            raise BadModelFile(
                f"{graph.path}: TensorRT has no operator {operator!r:.60} of the domain {domain!r:.60}"
            )
    return [*ours, *(module for module in given if module not in ours)]


def _library(asked: str | None, plugins: Sequence[str]) -> str:
    if asked is not None and asked not in MODULES:
        raise BadArgument(f"library: one of {', '.join(MODULES)}, got {asked!r:.30}")
    if plugins and asked == "tensorrt_rtx":
        raise BadArgument("library: plug-ins take the full tensorrt; tensorrt_rtx has no place for kernels")
    usable = ("tensorrt",) if plugins else tuple(MODULES)
    for name in usable if asked is None else (asked,):
        if any(find_spec(module) for module in MODULES[name]):
            return name
    if plugins:
        raise ProviderUnavailable(
            "tensorrt is not installed: pip install tensorrt-cu13, on a machine with an NVIDIA GPU; a graph "
            "with plug-ins takes the full one"
        )
    raise ProviderUnavailable(
        f"{asked or 'neither tensorrt nor tensorrt_rtx'} is not installed: pip install tensorrt-cu13, or, to "
        "build without a GPU, pip install tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings"
    )


class _Place(NamedTuple):
    """What engines are built by, and for: a GPU's name, or targets."""

    library: str
    version: str
    gpu: str
    targets: list[str]


def _place(asked: str | None, targets: Sequence[str], plugins: Sequence[str]) -> _Place:
    library = _library(asked, plugins)
    version = _in_process({"job": "version", "library": library, "plugins": list(plugins)}, library)[
        "version"
    ]
    devices = cuda_driver.devices()
    gpu, chosen = "", []
    if library == "tensorrt":
        if targets:
            raise BadArgument("targets: tensorrt builds for the GPU that is there; tensorrt_rtx can be told")
        if not devices:
            needs_none = "" if plugins else "; tensorrt_rtx needs none"
            raise ProviderUnavailable(f"tensorrt: no NVIDIA GPU to build an engine for{needs_none}")
        gpu = devices[0].name
    else:
        here = ["SM{}{}".format(*devices[0].capability)] if devices else list(TARGETS)
        chosen = list(dict.fromkeys(target.upper() for target in targets)) or here
        for target in chosen:
            if not re.fullmatch(r"SM\d{2,3}", target):
                raise BadArgument(f"targets: wanted such as SM89, got {target!r:.20}")
    return _Place(library, version, gpu, chosen)


def _wanted(
    graph: OnnxFile, batch: tuple[int, int, int], place: _Place, plugins: Sequence[str]
) -> PlanRecord:
    """The record that an engine of this model, made here and now, would have."""
    return PlanRecord(
        library=place.library,
        library_version=place.version,
        gpu=place.gpu,
        targets=place.targets,
        plugins=_identity(plugins),
        model_sha256=model_sha256(graph),
        batch=list(batch),
        inputs={name: [list(spec.shape), str(spec.dtype)] for name, spec in graph.inputs.items()},
        outputs={name: [list(spec.shape), str(spec.dtype)] for name, spec in graph.outputs.items()},
        metadata=graph.metadata,
    )


def _identity(plugins: Sequence[str]) -> str:
    """What an engine holds of plug-ins: fastface's are known by their kernels, others by name."""
    if PLUGINS not in plugins:
        return ", ".join(plugins)
    # Importing them registers them with TensorRT, which fails where fastface was built without nvcc.
    from fastface.exports.tensorrt_plugins import digest

    return ", ".join(f"{digest()} {module}" if module == PLUGINS else module for module in plugins)


def _reasons(plan: Path, wanted: PlanRecord) -> list[str]:
    if not plan.exists():
        return ["there was none"]
    try:
        record, _ = checked_plan(plan)
    except BadModelFile as error:
        return [str(error)]
    return record.differences(wanted)


def _timing_cache(wanted: PlanRecord) -> Path:
    """Where measured kernels are kept, for each TensorRT version and GPU."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    device = re.sub(r"\W+", "-", wanted.gpu or "-".join(wanted.targets))
    return Path(base) / "fastface" / f"{wanted.library}-{wanted.library_version}-{device}.timing"


def _in_process(job: dict[str, Any], what: str) -> dict[str, Any]:
    """Do a job in a process of its own. Its last line says what became of it."""
    root = str(Path(__file__).resolve().parents[1])
    package = Path(sys.modules["fastface"].__file__ or root).parents[1]
    path = os.pathsep.join([str(package), *filter(None, [os.environ.get("PYTHONPATH")])])
    finished = subprocess.run(
        [sys.executable, "-m", "fastface.exports.tensorrt_engine"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_S,
        env={**os.environ, "PYTHONPATH": path},
    )
    lines = finished.stdout.strip().splitlines()
    try:
        answer = json.loads(lines[-1]) if lines else {}
    except ValueError:
        answer = {}
    if finished.returncode == 0 and answer.get("done"):
        return dict(answer)
    if "missing" in answer:
        raise ProviderUnavailable(str(answer["missing"]))
    tail = " ".join(finished.stderr.split())[-300:]
    died = f"{job['library']} died of signal {-finished.returncode}" if finished.returncode < 0 else tail
    raise BadModelFile(f"{what}: {job['library']} refuses it: {answer.get('refused') or died}")


# --- in the process of its own ---


def _serve() -> None:
    job = json.load(sys.stdin)
    try:
        trt = load_library(job["library"])
        for module in job["plugins"]:
            import_module(module)
        answer: dict[str, Any] = {"done": True, "version": trt.__version__}
        if job["job"] == "build":
            _build(trt, job)
    except ProviderUnavailable as error:
        answer = {"missing": str(error)}
    except _Refused as error:
        answer = {"refused": str(error)}
    print(json.dumps(answer), flush=True)
    # TensorRT's own threads and handlers at exit are of no use any more, and have been seen to hang.
    sys.stderr.flush()
    os._exit(0)


class _Refused(Exception):
    """TensorRT does not take the model, in its own words."""


def _build(trt: Any, job: dict[str, Any]) -> None:
    logger, errors = _logger(trt)
    builder = trt.Builder(logger)
    # From TensorRT 11 on every network is strongly typed and the flag is gone.
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(job["model"]):
        found = [parser.get_error(i) for i in range(parser.num_errors)]
        raise _Refused("; ".join(map(_described, found))[:600])
    config = builder.create_builder_config()
    _set_profile(builder, config, job)
    if job["targets"]:
        _set_targets(trt, config, job["targets"])
    if job["plugins"]:
        # TF32 has ten bits of a product: a turned head would be a pixel off.
        config.clear_flag(trt.BuilderFlag.TF32)
    cache_file = Path(job["timing_cache"])
    cache = config.create_timing_cache(cache_file.read_bytes() if cache_file.is_file() else b"")
    config.set_timing_cache(cache, ignore_mismatch=False)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise _Refused("; ".join(errors)[:600] or "no engine came of it, and no word why")
    Path(job["output"]).write_bytes(memoryview(engine))
    measured = config.get_timing_cache()
    if measured is not None:
        cache_file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(cache_file, bytes(memoryview(measured.serialize())))


def _described(error: Any) -> str:
    """ "UNSUPPORTED_NODE: StringNormalizer /norm/op: why"; the parser's own reason may be just "false"."""
    kind = str(error.code()).rsplit(".", 1)[-1]
    where = f"{error.node_operator()} {error.node_name()}".strip()
    why = f": {error.desc()}" if error.desc() not in ("", "false") else ""
    return f"{kind}: {where}{why}"


def _logger(trt: Any) -> tuple[Any, list[str]]:
    errors: list[str] = []

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                errors.append(" ".join(message.split()))

    return Logger(), errors


def _set_profile(builder: Any, config: Any, job: dict[str, Any]) -> None:
    profile = builder.create_optimization_profile()
    varying = False
    for name, shape in job["inputs"].items():
        if shape and isinstance(shape[0], str):
            profile.set_shape(name, *([size, *shape[1:]] for size in job["batch"]))
            varying = True
    if varying and config.add_optimization_profile(profile) < 0:
        raise _Refused("its batch profile is not valid")


def _set_targets(trt: Any, config: Any, targets: list[str]) -> None:
    known = trt.ComputeCapability.__members__
    for target in targets:
        if target not in known:
            names = ", ".join(name for name in known if name.startswith("SM"))
            raise _Refused(f"it does not build for {target}, only for {names}")
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        config.set_compute_capability(known[target], index)


if __name__ == "__main__":
    _serve()
