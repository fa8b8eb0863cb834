"""One ``Session`` for every runtime that can run an ONNX model, or a TensorRT engine made from one.

Nothing falls back in silence: with ``providers=None`` the fastest one that is there is taken and named in
``Session.provider``, with a list the first of it runs or ``ProviderUnavailable`` is raised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadArgument, BadModelFile, ProviderUnavailable
from fastface.onnx_ops import DOMAIN, PLUGIN_DOMAIN, library_path
from fastface.runtime.backends import Arrays, Backend, Request
from fastface.runtime.onnx_file import OnnxFile, TensorSpec, scan
from fastface.runtime.providers import NAMES, PRECISIONS, Precision, available_cores, checked, provider_table

__all__ = ["MAX_BATCH", "OnnxFile", "Precision", "Session", "TensorSpec", "describe"]

#: Working memory grows with the batch, speed does not beyond this: see benchmarks/bench_generators.py.
MAX_BATCH: Final = 8


class Session:
    """A model, ready to run. Threads may share it.

    provider: what runs, in words, such as "OpenVINO 2026.4.1 CPU, bf16 (AMX), 2 threads".
    precision: what it computes in.
    passed_over: faster providers that were not taken, each with the reason; only without ``providers``.
    inputs, outputs: name → (shape, dtype); "B" in a shape is the batch.
    metadata: what the exporter wrote into the file ({} for a file from elsewhere).
    """

    def __init__(
        self,
        path: str | Path,
        providers: Sequence[str] | None = None,
        precision: Precision | None = None,
        threads: int | None = None,
        *,
        max_batch: int = MAX_BATCH,
        custom_ops: Sequence[str | Path] = (),
    ) -> None:
        """path: an .onnx file, or a .plan that ``fastface export tensorrt`` built.

        providers: of "tensorrt", "cuda", "openvino", "cpu"; strict. Several mean that the later ones may take
        operators that the first lacks. precision: "fp32" where a provider would take bfloat16 by itself, or
        "bf16", "fp16". threads: CPU threads, all cores by default. max_batch: larger batches are split.
        custom_ops: libraries of operators to load: native code, so only what you trust.

        Raises ``BadModelFile``, ``ProviderUnavailable``, ``BadArgument``.
        """
        self.path = Path(path)
        names = checked(providers)
        if precision is not None and precision not in PRECISIONS:
            raise BadArgument(f"precision: one of {', '.join(PRECISIONS)}, got {precision!r:.20}")
        self.threads = _whole("threads", available_cores() if threads is None else threads, 1024)
        self.max_batch = _whole("max_batch", max_batch, 4096)
        self.passed_over: dict[str, str] = {}
        self._backend: Backend
        if self.path.suffix.casefold() == ".plan":
            from fastface.runtime.tensorrt_engine import TensorRtEngine

            engine = TensorRtEngine(self.path, names, precision)
            self._backend, model = engine, engine.model
            self.max_batch = min(self.max_batch, engine.largest_batch)
        else:
            model = scan(self.path)
            libraries = _libraries(model, custom_ops)
            request = Request(model, precision, self.threads, self.max_batch, libraries)
            self._backend = self._fastest(request) if names is None else _start(request, names)
        self.inputs: dict[str, TensorSpec] = {**model.inputs, **model.defaults}
        self.outputs: dict[str, TensorSpec] = dict(model.outputs)
        self.metadata: dict[str, Any] = model.metadata
        self.provider: str = self._backend.words
        self.precision: str = self._backend.precision
        #: Inputs that the file gives a value for.
        self.optional = frozenset(model.defaults)

    def __repr__(self) -> str:
        return f"<Session {self.path.name}: {self.provider}>"

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> Arrays:
        """Run one batch; one larger than ``max_batch`` in pieces. Returns arrays of the caller's own: of the
        outputs named, or of all.

        Every input must have the declared dtype and shape, and the same B; inputs with a value in the
        file may be left out. Raises ``BadArgument`` for inputs that do not fit, ``BadModelFile`` when the
        graph fails on inputs that do.
        """
        given, batched, batch = self._checked(inputs)
        wanted = list(self.outputs if outputs is None else outputs)
        if strange := [name for name in wanted if name not in self.outputs]:
            raise BadArgument(
                f"{self.path.name}: no output {strange[0]!r:.40}; it has {', '.join(self.outputs)}"
            )
        if not wanted:  # runtimes take no names for all of them
            return {}
        if batch is None or 0 < batch <= self.max_batch:
            return self._backend.run(given, wanted)
        if batch == 0:
            return self._empty(wanted)
        return self._in_pieces(given, batched, batch, wanted)

    def run_dlpack(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run without copies: objects with ``__dlpack__`` in, on the device where the session runs, and such
        objects out. onnxruntime only; not split, so B must be at most ``max_batch``.

        Raises ``ProviderUnavailable`` for other runtimes, ``BadArgument`` for what does not fit.
        """
        from fastface.runtime.ort import OnnxRuntime

        if not isinstance(self._backend, OnnxRuntime):
            raise ProviderUnavailable(f"DLPack goes in and out of onnxruntime only; this is {self.provider}")
        for name, value in inputs.items():
            if not hasattr(value, "__dlpack__"):
                raise BadArgument(f"{self.path.name}: {name} has no __dlpack__: {type(value).__name__}")
        self._checked(inputs, convert=False)
        return self._backend.run_dlpack(inputs)

    def _fastest(self, request: Request) -> Backend:
        table = provider_table()
        for name, provider in table.items():
            if provider.missing:
                self.passed_over[name] = provider.missing
                continue
            # What a GPU's runtime lacks, the next one takes; openvino takes whole graphs or nothing.
            rest = [n for n in NAMES[NAMES.index(name) + 1 :] if n != "openvino" and not table[n].missing]
            try:
                return _start(request, [name, *rest] if name in ("tensorrt", "cuda") else [name])
            except ProviderUnavailable as error:
                self.passed_over[name] = str(error).removeprefix(f"{name}: ")
            except BadModelFile as error:
                # Runtimes differ in the operators they have. The slowest has most: its word counts.
                if name == "cpu":
                    raise
                self.passed_over[name] = str(error)
        reasons = "; ".join(f"{name}: {reason}" for name, reason in self.passed_over.items())
        raise ProviderUnavailable(f"nothing here runs {self.path.name} as asked. {reasons}")

    def _checked(
        self, inputs: Mapping[str, Any], *, convert: bool = True
    ) -> tuple[Arrays, list[str], int | None]:
        """The inputs as arrays, the names of those with a batch, and B (None when nothing has one)."""
        unknown = [name for name in inputs if name not in self.inputs]
        missing = [name for name in self.inputs if name not in inputs and name not in self.optional]
        if unknown or missing:
            wrong = f"no input {unknown[0]!r:.40}" if unknown else f"the input {missing[0]!r} is missing"
            wanted = ", ".join(f"{name} {spec}" for name, spec in self.inputs.items())
            raise BadArgument(f"{self.path.name}: {wrong}; wanted {wanted}")
        given: Arrays = {}
        sizes: dict[str, int] = {}
        batched = []
        for name, value in inputs.items():
            spec = self.inputs[name]
            array = np.asarray(value) if convert else value
            _check_shape(f"{self.path.name}: {name}", tuple(array.shape), spec, sizes)
            if convert:
                if array.dtype != spec.dtype:
                    raise BadArgument(f"{self.path.name}: {name} must be {spec}, got {array.dtype}")
                given[name] = np.ascontiguousarray(array).reshape(array.shape)
            if spec.shape and spec.shape[0] == self._batch_name:
                batched.append(name)
        return given, batched, sizes.get(self._batch_name) if self._batch_name else None

    @property
    def _batch_name(self) -> str:
        """The name of the varying first dimension, "B" in our files; "" when there is none."""
        first = [
            spec.shape[0] for spec in self.inputs.values() if spec.shape and isinstance(spec.shape[0], str)
        ]
        return "B" if "B" in first else str(first[0]) if first else ""

    def _in_pieces(self, given: Arrays, batched: list[str], batch: int, wanted: list[str]) -> Arrays:
        whole: Arrays = {}
        for start in range(0, batch, self.max_batch):
            piece = {
                name: array[start : start + self.max_batch] if name in batched else array
                for name, array in given.items()
            }
            count = min(self.max_batch, batch - start)
            for name, array in self._backend.run(piece, wanted).items():
                if not array.ndim or array.shape[0] != count:
                    raise BadArgument(
                        f"{self.path.name}: its output {name} has no batch, so {batch} cannot go in pieces "
                        f"of {self.max_batch}; make the session with max_batch={batch}"
                    )
                if start == 0:
                    whole[name] = np.empty((batch, *array.shape[1:]), array.dtype)
                whole[name][start : start + count] = array
        return whole

    def _empty(self, wanted: list[str]) -> Arrays:
        """What a batch of none gives: runtimes disagree on it, so they are not asked."""
        found = {}
        for name in wanted:
            spec = self.outputs[name]
            shape = [0, *(dim if isinstance(dim, int) else 0 for dim in spec.shape[1:])]
            found[name] = np.empty(shape, spec.dtype)
        return found


def _start(request: Request, names: Sequence[str]) -> Backend:
    if names[0] == "openvino":
        from fastface.runtime.openvino_cpu import OpenVino

        return OpenVino(request)
    from fastface.runtime.ort import OnnxRuntime

    return OnnxRuntime(request, names)


def _libraries(model: OnnxFile, custom_ops: Sequence[str | Path]) -> tuple[Path, ...]:
    if isinstance(custom_ops, str | Path):
        raise BadArgument("custom_ops: wanted a list of libraries")
    libraries = tuple(Path(library) for library in custom_ops)
    for library in libraries:
        if not library.is_file():
            raise BadArgument(f"custom_ops: {library}: no such file")
    strange = {name: it for name, it in model.domains.items() if name not in (DOMAIN, PLUGIN_DOMAIN)}
    if len(strange) < len(model.domains):
        libraries += (library_path(),)
    if strange and not custom_ops:
        domain, operator = next(iter(strange.items()))
        raise BadModelFile(
            f"{model.path}: wants the operator {operator!r:.60} of the domain {domain!r:.60}, which no "
            "runtime has; give the library that brings it as custom_ops"
        )
    return libraries


def _check_shape(what: str, shape: tuple[int, ...], spec: TensorSpec, sizes: dict[str, int]) -> None:
    if len(shape) != len(spec.shape):
        raise BadArgument(f"{what} must be {spec}, got {shape}")
    fits = True
    for got, wanted in zip(shape, spec.shape, strict=True):
        if isinstance(wanted, int):
            fits = fits and got == wanted
        elif wanted and sizes.setdefault(wanted, got) != got:
            raise BadArgument(f"{what}: {wanted} is {got}, but {sizes[wanted]} in another input")
    if not fits:
        raise BadArgument(f"{what} must be {spec}, got {shape}")


def _whole(what: str, value: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise BadArgument(f"{what}: wanted a whole number from 1 to {most}, got {value!r:.20}")
    return value


def describe(path: str | Path) -> OnnxFile:
    """Inputs, outputs and metadata of an .onnx file or a .plan, without running it. ``BadModelFile``."""
    path = Path(path)
    if path.suffix.casefold() == ".plan":
        from fastface.runtime.plan import read_record

        return read_record(path).model(path)
    return scan(path)
