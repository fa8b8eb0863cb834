"""A generator's weights under its authors' PyTorch names, whichever file they came in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np

from fastface.checkpoints.kinds import RECOGNISERS
from fastface.checkpoints.safetensors import is_safetensors, parsed, write_safetensors
from fastface.checkpoints.tensors import Setting, Tensors, plain_tensors
from fastface.checkpoints.torch_files import read_bytes, unpickled
from fastface.checkpoints.unpickling import shown
from fastface.errors import BadArgument, BadModelFile
from fastface.version import package_version

METADATA_KEY: Final = "fastface"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """``kind`` is one of ``kinds.RECOGNISERS``, or None: it could not be told.

    ``sha256`` is that of the file that the authors published, also after conversion.
    """

    kind: str | None
    tensors: Tensors
    config: dict[str, Setting]
    source: str
    sha256: str


def read_checkpoint(path: str | Path, kind: str | None = None) -> Checkpoint:
    """Read a published checkpoint or a ``.safetensors`` made of one; nothing in it is run.

    ``kind`` insists on one kind of generator. Raises ``BadModelFile``: damaged, hostile, not finite, or not
    of that kind.
    """
    if kind is not None and kind not in RECOGNISERS:
        raise BadArgument(f"kind must be one of {', '.join(RECOGNISERS)}, got {kind!r:.40}")
    source = str(path)
    data = read_bytes(path)
    if is_safetensors(data[:9]):
        tensors, metadata = parsed(data, source)
        if METADATA_KEY in metadata:
            return _converted(tensors, metadata[METADATA_KEY], source, kind)
        value: Any = tensors
    else:
        value = unpickled(data, source).value
    digest = sha256(data).hexdigest()
    for name, recognise in RECOGNISERS.items():
        if kind in (None, name) and (found := recognise(value, source)) is not None:
            return _checked(Checkpoint(name, *found, source, digest))
    if kind is not None:
        others = [name for name, recognise in RECOGNISERS.items() if recognise(value, source) is not None]
        seen = f"; it is one of {others[0]}" if others else _seen(value)
        raise BadModelFile(f"{source}: not a checkpoint of {kind}{seen}")
    return _checked(Checkpoint(None, dict(plain_tensors(value) or {}), {}, source, digest))


def write_checkpoint(checkpoint: Checkpoint, path: str | Path) -> None:
    """Write as ``.safetensors``; ``read_checkpoint`` gives the same again. Raises ``WriteFailed``."""
    about = {
        "kind": checkpoint.kind,
        "config": checkpoint.config,
        "sha256": checkpoint.sha256,
        "version": package_version(),
    }
    write_safetensors(path, checkpoint.tensors, {METADATA_KEY: json.dumps(about, sort_keys=True)})


def _converted(tensors: Tensors, text: str, source: str, kind: str | None) -> Checkpoint:
    try:
        about = json.loads(text)
        found, config, digest = about["kind"], about["config"], about["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadModelFile(f"{source}: the metadata of its conversion is damaged") from error
    if (
        not isinstance(config, dict)
        or not isinstance(digest, str)
        or not isinstance(found, (str, type(None)))
    ):
        raise BadModelFile(f"{source}: the metadata of its conversion is damaged")
    if kind is not None and kind != found:
        raise BadModelFile(f"{source}: a checkpoint of {shown(found)}, not of {kind}")
    return _checked(Checkpoint(found, tensors, config, source, digest))


def _checked(checkpoint: Checkpoint) -> Checkpoint:
    for name, tensor in checkpoint.tensors.items():
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise BadModelFile(f"{checkpoint.source}: {shown(name)} holds values that are not finite")
    return checkpoint


def _seen(value: Any) -> str:
    names = list(_some_names(value))
    return f"; it holds {', '.join(names)}" if names else ""


def _some_names(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name in list(value)[:4]:
            yield shown(name)
