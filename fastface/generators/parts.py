"""A generator's files: one graph each, ``net.mapping.onnx`` beside ``net.synthesis.onnx``."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from fastface.errors import BadModelFile
from fastface.runtime import MAX_BATCH, Precision, Session, describe

KINDS: Final = ("stylegan2", "stylegan3", "starganv2", "stargan", "ganimation")
_PARTS: Final = ("mapping", "synthesis", "generator", "style_encoder", "fan")
_SUFFIXES: Final = (".onnx", ".plan")


class Parts:
    """The graphs that make up one generator. Sessions are made on first use; threads may share them."""

    def __init__(
        self,
        path: str | Path,
        providers: Sequence[str] | None = None,
        precision: Precision | None = None,
        threads: int | None = None,
        max_batch: int = MAX_BATCH,
    ) -> None:
        """path: the name given to the exporter (``net.onnx``), any one of the files, or their stem.

        Raises ``BadModelFile`` when there are none, or they do not belong together.
        """
        self.files = _find(Path(path))
        self._how: dict[str, Any] = {
            "providers": providers,
            "precision": precision,
            "threads": threads,
            "max_batch": max_batch,
        }
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()
        self.metadata = _common_metadata(self.files)
        self.kind: str = self.metadata["kind"]

    def __contains__(self, part: str) -> bool:
        return part in self.files

    def session(self, part: str) -> Session:
        """The session of a part. Raises ``BadModelFile`` when that file is not there."""
        with self._lock:
            if part not in self._sessions:
                if part not in self.files:
                    one = next(iter(self.files.values()))
                    raise BadModelFile(f"{one.parent}: the part {part} of {one.name} is not there")
                self._sessions[part] = Session(self.files[part], **self._how)
            return self._sessions[part]


def wanted_inputs(session: Session, needed: Sequence[str], outputs: Sequence[str]) -> None:
    """Raise ``BadModelFile`` unless the graph has these inputs and outputs."""
    for what, names, there in (("input", needed, session.inputs), ("output", outputs, session.outputs)):
        missing = [name for name in names if name not in there]
        if missing:
            raise BadModelFile(
                f"{session.path}: no {what} {missing[0]!r}, it has {', '.join(there)}; export it anew"
            )


def _find(path: Path) -> dict[str, Path]:
    """Part → file."""
    name = path.name
    suffixes: tuple[str, ...] = _SUFFIXES
    for suffix in _SUFFIXES:
        if name.casefold().endswith(suffix):
            name, suffixes = name[: -len(suffix)], (suffix,)
    for part in _PARTS:
        name = name.removesuffix(f".{part}")
    for suffix in suffixes:
        found = {part: path.with_name(f"{name}.{part}{suffix}") for part in _PARTS if name}
        found = {part: file for part, file in found.items() if file.is_file()}
        if found:
            return found
    raise BadModelFile(
        f"{path}: no generator there; wanted files such as {name}.generator{suffixes[0]} or "
        f"{name}.mapping{suffixes[0]} with {name}.synthesis{suffixes[0]}"
    )


def _common_metadata(files: dict[str, Path]) -> dict[str, Any]:
    """What the files say of the generator. They must be of one kind and one checkpoint, and of ours."""
    first: dict[str, Any] = {}
    for part, file in files.items():
        about = describe(file).metadata
        if about.get("kind") not in KINDS or about.get("part") != part:
            raise BadModelFile(
                f"{file}: not the {part} of a generator that `fastface export` wrote "
                f"(kind {about.get('kind')!r:.40}, part {about.get('part')!r:.40})"
            )
        if part == "fan":  # comes with every generator alike, of a checkpoint of its own
            continue
        first = first or about
        for key in ("kind", "checkpoint_sha256"):
            if about.get(key) != first.get(key):
                raise BadModelFile(f"{file}: of another {key.replace('_', ' ')} than the files beside it")
    if not first:
        raise BadModelFile(f"{next(iter(files.values()))}: a landmark network alone is no generator")
    return first
