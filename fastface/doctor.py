"""What is installed here, what works, what is missing and how to get it."""

from __future__ import annotations

import base64
import hashlib
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

from fastface.errors import ProviderUnavailable

Status = Literal["ok", "missing", "broken"]

ASSETS: Final = Path(__file__).parent / "assets"
#: Distributions that the base install needs; pip names.
REQUIRED: Final = ("numpy", "onnxruntime", "opencv-python-headless", "pillow", "av", "typer", "rich")
#: extra → (a distribution that tells it is there, what it is for).
EXTRAS: Final[dict[str, tuple[str, str]]] = {
    "parquet": ("pyarrow", "tables of labels as Parquet instead of JSON lines"),
    "export": ("torch", "exporting generators to ONNX"),
    "openvino": ("openvino", "networks on the processor at their fastest, in bfloat16 where it can"),
    "cuda": ("onnxruntime-gpu", "networks on NVIDIA GPUs"),
    "workshop": ("scipy", "importing published head models, models of your own scans"),
}
#: Packages that stand in for a required one.
_SAME_AS: Final = {
    "onnxruntime": ("onnxruntime-gpu",),
    "opencv-python-headless": ("opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python"),
}


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor's report. ``advice`` says how to get what is missing; "" when all is well.

    "missing" is something optional that is not there; "broken" is something without which the package does
    not work.
    """

    name: str
    status: Status
    detail: str
    advice: str = ""


def examine() -> list[Check]:
    """All checks, in the order in which they are worth reading. Never raises: a check that fails is
    "broken"."""
    checks: list[Check] = []
    devices = (_providers, _cuda, _cuda_kernels)
    for group in (_system, _core, _packages, *devices, _codecs, _assets, _works, _extras):
        try:
            checks.extend(group())
        except Exception as error:  # whatever a broken installation comes up with
            name = group.__name__.strip("_")
            checks.append(Check(name, "broken", f"{type(error).__name__}: {error}", _REINSTALL))
    return checks


_REINSTALL: Final = "pip install --force-reinstall fastface"


def _system() -> Iterator[Check]:
    from fastface.version import package_version

    yield Check("fastface", "ok", f"{package_version()} in {Path(__file__).parent}")
    python = f"{platform.python_version()} ({platform.machine()}, {platform.system()} {platform.release()})"
    fine = sys.version_info >= (3, 11)
    yield Check(
        "python", "ok" if fine else "broken", python, "" if fine else "Python 3.11 or later is needed"
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check("cores", "ok", f"{cores} usable of {os.cpu_count()}")


def _core() -> Iterator[Check]:
    try:
        from fastface import _core as core
    except ImportError as error:
        yield Check("compiled core", "broken", str(error), "pip install . (needs a C++20 compiler and CMake)")
        return
    yield Check("compiled core", "ok", f"{core.isa()} chosen of {', '.join(core.available_isas())}")


def _version(distribution: str) -> str | None:
    for name in (distribution, *_SAME_AS.get(distribution, ())):
        try:
            return f"{metadata.version(name)}" + ("" if name == distribution else f" ({name})")
        except metadata.PackageNotFoundError:
            continue
    return None


def _packages() -> Iterator[Check]:
    for name in REQUIRED:
        version = _version(name)
        yield Check(
            name,
            "ok" if version else "broken",
            version or "not installed",
            "" if version else f"pip install {name}",
        )


def _providers() -> Iterator[Check]:
    """What can run networks, fastest first, and what builds engines for NVIDIA GPUs."""
    import onnxruntime

    from fastface.runtime.providers import bf16_instructions, provider_table
    from fastface.runtime.tensorrt_engine import ADVICE, MODULES

    yield Check("onnxruntime providers", "ok", ", ".join(onnxruntime.get_available_providers()))
    from fastface import onnx_ops

    try:
        onnx_ops.register(onnxruntime.SessionOptions())
    except Exception as error:  # onnxruntime's own share no base
        yield Check("onnxruntime operators", "broken", str(error), _REINSTALL)
    else:
        yield Check("onnxruntime operators", "ok", f"{len(onnx_ops.operators())} of domain fastface")
    for name, provider in provider_table().items():
        status: Status = "missing" if provider.missing else "ok"
        yield Check(f"provider {name}", status, provider.missing or "networks can run on it", provider.advice)
    unit = bf16_instructions()
    yield Check("bfloat16", "ok" if unit else "missing", unit or "this processor has no instructions for it")
    for library, modules in MODULES.items():
        found = any(find_spec(module) for module in modules)
        detail = "builds engines" if found else "not installed: builds engines for NVIDIA GPUs"
        yield Check(library, "ok" if found else "missing", detail, "" if found else ADVICE[library])


def _cuda() -> Iterator[Check]:
    """Through the driver itself: no toolkit and no other package needs to be there."""
    from fastface.runtime.cuda_driver import devices, library

    try:
        library()
    except ProviderUnavailable as error:
        yield Check("cuda", "missing", str(error), "the CPU path needs none; see nvidia-smi for more")
        return
    first = devices()[0]
    capability = "SM{}{}".format(*first.capability)
    yield Check("cuda", "ok", f"{len(devices())} device(s), first: {first.name} ({capability})")


def _cuda_kernels() -> Iterator[Check]:
    from fastface.device import cuda_problem, open_device

    problem = cuda_problem()
    if problem:
        what, _, advice = problem.removeprefix("device cuda: ").partition("; ")
        yield Check("cuda kernels", "missing", what, advice)
    else:
        yield Check("cuda kernels", "ok", f"device='cuda' renders on {open_device().name}")


def _codecs() -> Iterator[Check]:
    import av

    library = ".".join(str(part) for part in av.library_versions["libavcodec"])
    for codec, use in (("libx264", "MP4 (H.264; this encoder is GPL)"), ("ffv1", "MKV, lossless")):
        try:
            av.Codec(codec, "w")
        except (av.FFmpegError, ValueError, LookupError):
            yield Check(
                codec, "missing", f"not in this PyAV; needed for {use}", "pip install --force-reinstall av"
            )
        else:
            yield Check(codec, "ok", f"{use}, libavcodec {library}")


def _assets() -> Iterator[Check]:
    from fastface.morphable import DEFAULT_MODEL, load_default

    recorded = _recorded_hashes()
    for path in sorted(p for p in ASSETS.rglob("*") if p.is_file() and p.suffix in (".npz", ".onnx", ".jpg")):
        name = path.relative_to(ASSETS).as_posix()
        digest = hashlib.sha256(path.read_bytes()).digest()
        wanted = recorded.get(f"fastface/assets/{name}")
        if wanted not in (None, digest):
            yield Check(name, "broken", "differs from what was installed", _REINSTALL)
            continue
        seen = "as installed" if wanted else "source tree"
        yield Check(name, "ok", f"{path.stat().st_size / 1e6:.1f} MB, sha256 {digest.hex()[:16]}, {seen}")
    if not DEFAULT_MODEL.is_file():
        yield Check(
            "default head model", "broken", f"{DEFAULT_MODEL} is not there", "fastface model build-default"
        )
        return
    model = load_default()
    modes = f"{len(model.identity)} identity and {len(model.expression)} expression modes"
    shape = f"{len(model.vertices):,} vertices, {modes}"
    yield Check("default head model", "ok", f"{model.name}: {shape}, {model.license}")


def _works() -> Iterator[Check]:
    """The parts together: the photo that ships, through the networks, the fit and one frame."""
    from fastface.affect import Affect
    from fastface.engine import Engine

    start = time.perf_counter()
    engine = Engine()
    ready = time.perf_counter()
    face = engine.fit(ASSETS / "demo.jpg")
    fitted = time.perf_counter()
    frame = engine.render(face, Affect.expression("happy"))
    done = time.perf_counter()
    fine = frame.shape == face.photo.shape and bool((frame != face.photo).any())
    times = f"start {ready - start:.2f} s, fit {fitted - ready:.2f} s, frame {done - fitted:.3f} s"
    yield Check("a face, fitted and moved", "ok" if fine else "broken", times, "" if fine else _REINSTALL)


def _recorded_hashes() -> dict[str, bytes]:
    """SHA-256 of every installed file, from the wheel's own RECORD; empty for a source tree."""
    try:
        files = metadata.files("fastface") or []
    except metadata.PackageNotFoundError:
        return {}
    return {
        file.as_posix(): base64.urlsafe_b64decode(file.hash.value + "==")
        for file in files
        if file.hash is not None
        and file.hash.mode == "sha256"
        and Path(str(file.locate())).parent.is_relative_to(ASSETS)
    }


def _extras() -> Iterator[Check]:
    for extra, (distribution, use) in EXTRAS.items():
        version = _version(distribution)
        advice = "" if version else f"pip install 'fastface[{extra}]'"
        detail = f"{distribution} {version}" if version else f"{distribution} not installed: {use}"
        yield Check(f"[{extra}]", "ok" if version else "missing", detail, advice)
