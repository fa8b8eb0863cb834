"""Files as NVIDIA's and rosinality's scripts write them, from small seeded networks.

The classes here only have the names and the shape of the originals: what is tested is the reading.
"""

from __future__ import annotations

import io
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
SOURCE = "raise SystemExit('the source text of a pickle was run')"


class EasyDict(dict):  # type: ignore[type-arg]
    """dnnlib's dictionary with attributes."""


def _reconstruct_persistent_obj(meta: Any) -> Any:
    raise AssertionError("only named, never called")


class Persistent:
    """An object of a class decorated with ``persistent_class``."""

    def __init__(self, name: str, state: dict[str, Any]) -> None:
        self.meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": name, "state": state}

    def __reduce__(self) -> tuple[Any, ...]:
        return _reconstruct_persistent_obj, (self.meta,)


class Network:
    """A network of the TensorFlow code."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


@contextmanager
def original_names() -> Iterator[None]:
    """The classes above under their originals' names, so that pickles carry these."""
    places = {
        "dnnlib": None, "dnnlib.util": EasyDict, "dnnlib.tflib": None, "dnnlib.tflib.network": Network,
        "torch_utils": None, "torch_utils.persistence": _reconstruct_persistent_obj,
    }  # fmt: skip
    kept = {name: sys.modules.get(name) for name in places}
    modules = {id(thing): thing.__module__ for thing in places.values() if thing is not None}
    try:
        for name, thing in places.items():
            module = types.ModuleType(name)
            sys.modules[name] = module
            if thing is not None:
                setattr(module, thing.__name__, thing)
                thing.__module__ = name
        yield
    finally:
        for name, before in kept.items():
            del sys.modules[name]
            if before is not None:
                sys.modules[name] = before
        for thing in places.values():
            if thing is not None:
                thing.__module__ = modules[id(thing)]


def modules(tensors: Arrays, attributes: Mapping[str, Mapping[str, Any]]) -> Persistent:
    """Dotted names as nested modules with torch tensors; ``attributes`` of each module by its name."""
    import torch

    tree: dict[str, Any] = {}
    for name, array in tensors.items():
        *path, leaf = name.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = torch.from_numpy(np.array(array))
    return _module("", tree, attributes)


def _module(name: str, tree: dict[str, Any], attributes: Mapping[str, Mapping[str, Any]]) -> Persistent:
    import torch

    leaves = {key: value for key, value in tree.items() if not isinstance(value, dict)}
    buffers = ("resample_filter", "noise_const", "w_avg", "freqs", "phases", "transform", "up_filter")
    buffers += ("down_filter", "magnitude_ema")
    inside = {key: value for key, value in tree.items() if isinstance(value, dict)}
    state: dict[str, Any] = {
        "training": False,
        "_parameters": OrderedDict(
            (key, torch.nn.Parameter(value)) for key, value in leaves.items() if key not in buffers
        ),
        "_buffers": OrderedDict((key, value) for key, value in leaves.items() if key in buffers),
        "_non_persistent_buffers_set": set(),
        "_backward_hooks": OrderedDict(),
        "_modules": OrderedDict(
            (key, _module(f"{name}.{key}".strip("."), value, attributes)) for key, value in inside.items()
        ),
        "_init_args": (),
        "_init_kwargs": EasyDict(),
        **attributes.get(name, {}),
    }
    return Persistent(name or "Generator", state)


def persistent_pickle(network: Persistent, protocol: int = 4) -> bytes:
    """A training snapshot of StyleGAN2-ADA or StyleGAN3."""
    with original_names():
        return pickle.dumps(
            {
                "G": None,
                "D": None,
                "G_ema": network,
                "training_set_kwargs": EasyDict(path="x"),
                "augment_pipe": None,
            },
            protocol=protocol,
        )


def tensorflow_pickle(
    kwargs: dict[str, Any], own: Arrays, parts: Mapping[str, Arrays], version: int = 4
) -> bytes:
    """(G, D, Gs) of StyleGAN2's TensorFlow code."""

    def network(variables: Arrays, inside: dict[str, Any], static: dict[str, Any]) -> Network:
        return Network(
            {
                "version": version,
                "name": "G",
                "static_kwargs": EasyDict(static),
                "components": EasyDict(inside),
                "build_module_src": SOURCE,
                "build_func_name": "G_main",
                "variables": [(name, np.asarray(array)) for name, array in variables.items()],
            }
        )

    inside = {name: network(variables, {}, {}) for name, variables in parts.items()}
    generator = network(own, inside, kwargs)
    with original_names():
        return pickle.dumps((network({}, {}, {}), network({}, {}, {}), generator), protocol=4)


def tensorflow_arrays(ours: Arrays, resolution: int, architecture: str) -> dict[str, dict[str, NDArray[Any]]]:
    """Our names and layouts back to TensorFlow's: {"": own, "mapping": …, "synthesis": …}."""
    mapping: dict[str, NDArray[Any]] = {}
    synthesis: dict[str, NDArray[Any]] = {}
    for name, array in ours.items():
        where, *path = name.split(".")
        if name == "mapping.w_avg" or path[-1] == "resample_filter":
            continue
        if where == "mapping":
            layer = "LabelEmbed" if path[0] == "embed" else f"Dense{path[0][2:]}"
            mapping[f"{layer}/{path[1]}"] = array.T
            continue
        size = int(path[0][1:])
        if path[1] == "const":
            synthesis["4x4/Const/const"] = array[None]
            continue
        theirs = {
            "conv0": "Conv0_up",
            "conv1": "Conv" if size == 4 else "Conv1",
            "torgb": "ToRGB",
            "skip": "Skip",
        }
        prefix = f"{size}x{size}/{theirs[path[1]]}"
        if path[1] == "torgb" and architecture == "orig":
            prefix = "ToRGB_lod0"
        what = ".".join(path[2:])
        if what == "weight":
            kernel = array.transpose(2, 3, 1, 0)
            synthesis[f"{prefix}/weight"] = kernel[::-1, ::-1] if path[1] in ("conv0", "skip") else kernel
        elif what == "noise_const":
            first = 2 * size.bit_length() - 7
            number = first + int(path[1] == "conv1") if size > 4 else 0
            synthesis[f"noise{number}"] = array[None, None]
        else:
            key = {"affine.weight": "mod_weight", "affine.bias": "mod_bias"}.get(what, what)
            synthesis[f"{prefix}/{key}"] = {"mod_weight": array.T, "mod_bias": array - 1}.get(key, array)
    return {"": {"dlatent_avg": ours["mapping.w_avg"]}, "mapping": mapping, "synthesis": synthesis}


def rosinality_state(ours: Arrays, resolution: int) -> dict[str, NDArray[Any]]:
    """Our names and layouts back to rosinality's ``g_ema``."""
    theirs: dict[str, NDArray[Any]] = {"input.input": ours["synthesis.b4.const"][None]}
    kernel = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32) / 16

    def styled(name: str, prefix: str, number: int) -> None:
        weight = ours[f"{name}.weight"]
        theirs[f"{prefix}.conv.weight"] = (weight * np.sqrt(np.prod(weight.shape[1:])))[None].astype(
            np.float32
        )
        theirs[f"{prefix}.conv.modulation.weight"] = ours[f"{name}.affine.weight"]
        theirs[f"{prefix}.conv.modulation.bias"] = ours[f"{name}.affine.bias"]
        theirs[f"{prefix}.noise.weight"] = ours[f"{name}.noise_strength"].reshape(1)
        theirs[f"{prefix}.activate.bias"] = ours[f"{name}.bias"]
        theirs[f"noises.noise_{number}"] = ours[f"{name}.noise_const"][None, None]

    def colours(name: str, prefix: str) -> None:
        theirs[f"{prefix}.conv.weight"] = ours[f"{name}.weight"][None]
        theirs[f"{prefix}.conv.modulation.weight"] = ours[f"{name}.affine.weight"]
        theirs[f"{prefix}.conv.modulation.bias"] = ours[f"{name}.affine.bias"]
        theirs[f"{prefix}.bias"] = ours[f"{name}.bias"].reshape(1, -1, 1, 1)

    for n in range(sum(name.startswith("mapping.fc") and name.endswith("weight") for name in ours)):
        theirs[f"style.{n + 1}.weight"] = ours[f"mapping.fc{n}.weight"]
        theirs[f"style.{n + 1}.bias"] = ours[f"mapping.fc{n}.bias"]
    styled("synthesis.b4.conv1", "conv1", 0)
    colours("synthesis.b4.torgb", "to_rgb1")
    for n in range(resolution.bit_length() - 3):
        block = f"synthesis.b{8 << n}"
        styled(f"{block}.conv0", f"convs.{2 * n}", 2 * n + 1)
        styled(f"{block}.conv1", f"convs.{2 * n + 1}", 2 * n + 2)
        theirs[f"convs.{2 * n}.conv.blur.kernel"] = kernel
        colours(f"{block}.torgb", f"to_rgbs.{n}")
        theirs[f"to_rgbs.{n}.upsample.kernel"] = kernel
    return theirs


def torch_file(value: Any, *, new: bool = True) -> bytes:
    """``torch.save`` in memory."""
    import torch

    made = io.BytesIO()
    torch.save(value, made, _use_new_zipfile_serialization=new)
    return made.getvalue()
