"""What can be told of a generated image: blendshapes and pose of its face, or what any ONNX network says.

A scorer takes images (B, R, R, 3) uint8 and gives (B, S) float32, NaN where it has nothing to say.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from fastface.affect import Affect, affect_model
from fastface.affect_tables import EXPRESSIONS
from fastface.errors import BadArgument, BadModelFile, NoFaceFound
from fastface.landmarks import BLENDSHAPE_NAMES, FaceLandmarks, LandmarkDetector

Float32 = NDArray[np.float32]
Images = NDArray[np.uint8]

POSE: Final = ("yaw_deg", "pitch_deg", "roll_deg")
#: Smaller images are enlarged: the detector's view is 128 px, the landmark network's crop 256.
_LEAST_SIDE_PX: Final = 256
_MAX_DESCRIPTION: Final = 1 << 16


class Scorer(Protocol):
    """``names``: of the S scores. ``digest``: changes when the scores would."""

    names: tuple[str, ...]
    digest: str

    def __call__(self, images: Images) -> Float32: ...


def find_face(detector: LandmarkDetector, image: Images) -> FaceLandmarks | None:
    """The largest face of an image, in its own pixels, or None. Small images are looked at enlarged."""
    side = min(image.shape[:2])
    if side >= _LEAST_SIDE_PX:
        return next(iter(detector.detect(image)), None)
    scale = _LEAST_SIDE_PX / side
    large = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    found = next(iter(detector.detect(np.asarray(large, np.uint8))), None)
    if found is None:
        return None
    left, top, right, bottom = (value / scale for value in found.box_px)
    return FaceLandmarks(
        (found.points_px / scale).astype(np.float32),
        (found.depth_px / scale).astype(np.float32),
        found.blendshapes,
        found.score,
        (left, top, right, bottom),
    )


class FaceScorer:
    """The 52 blendshapes of the landmark networks, and the head's pose in degrees by a fit of the head
    model; NaN where no face is found."""

    names: tuple[str, ...] = (*BLENDSHAPE_NAMES[1:], *POSE)

    def __init__(self, threads: int = 1) -> None:
        """threads: images that are looked at at a time."""
        from fastface.fitting import FaceFitter
        from fastface.head_models import open_model

        self._threads = threads
        model = open_model("default")
        self._fitter = FaceFitter(model)
        self._detector = LandmarkDetector()
        self.digest = f"mediapipe blendshapes 1, pose by {model.digest[:16]}"

    def __call__(self, images: Images) -> Float32:
        with ThreadPoolExecutor(self._threads) as pool:
            rows = list(pool.map(self._scored, images))
        return np.array(rows, np.float32).reshape(-1, len(self.names))

    def _scored(self, image: Images) -> Float32:
        from fastface.camera import angles_deg

        row = np.full(len(self.names), np.nan, np.float32)
        face = find_face(self._detector, image)
        if face is None:
            return row
        try:
            fit = self._fitter.fit(face.points_px, *image.shape[:2])
        except NoFaceFound:
            return row
        row[: -len(POSE)] = face.blendshapes[1:]
        row[-len(POSE) :] = angles_deg(fit.camera.rotation)
        return row


def expression_score(scores: Float32, names: Sequence[str], expression: str) -> Float32:
    """(N,): how much of a basic expression shows in blendshape scores (N, S): 1 where they are those of the
    affect tables at intensity 1. Raises ``BadArgument``."""
    if expression not in EXPRESSIONS:
        raise BadArgument(f"an expression is one of {', '.join(EXPRESSIONS)}, got {expression!r:.40}")
    shapes = [name for name in BLENDSHAPE_NAMES[1:] if name in names]
    if not shapes:
        raise BadArgument(f"{expression}: wanted blendshape scores, there are {', '.join(names)!r:.80}")
    table = affect_model().coefficients(Affect.expression(expression), shapes).astype(np.float64)
    columns = scores[:, [list(names).index(name) for name in shapes]].astype(np.float64)
    shown: Float32 = (columns @ table / (table @ table)).astype(np.float32)
    return shown


def attribute_scores(scores: Float32, names: Sequence[str], attribute: str) -> Float32:
    """(N,) of one attribute: a scorer's own name, ``yaw`` and its like, or a basic expression.
    ``BadArgument``."""
    listed = list(names)
    for name in (attribute, f"{attribute}_deg"):
        if name in listed:
            column: Float32 = scores[:, listed.index(name)]
            return column
    check_attribute(attribute, listed)
    return expression_score(scores, names, attribute)


def check_attribute(attribute: str, others: Sequence[str] = ()) -> None:
    """Raise ``BadArgument`` unless faces are scored for this, or it is one of ``others``."""
    if attribute not in (
        *FaceScorer.names,
        *(name.removesuffix("_deg") for name in POSE),
        *EXPRESSIONS,
        *others,
    ):
        more = [name for name in others if name not in FaceScorer.names]
        raise BadArgument(
            f"no attribute {attribute!r:.60}; there are the expressions {', '.join(EXPRESSIONS)}, ARKit's "
            f"blendshapes such as jawOpen, yaw, pitch, roll{''.join(f', {name}' for name in more)}"
        )


# --- any ONNX network ---


@dataclass(frozen=True)
class ImageInput:
    """How a network wants its image: ``(pixel / 255 - mean) / std`` of a square of ``size`` px.

    crop: left, top, right, bottom of the part that it sees, as shares of the image.
    """

    size: int = 0
    layout: str = "NCHW"
    channels: str = "RGB"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    crop: tuple[float, ...] = (0.0, 0.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        def need(fine: bool, what: str) -> None:
            if not fine:
                raise BadArgument(f"image input: {what}")

        need(1 <= self.size <= 4096, f"size must be 1 to 4096 px, got {self.size}")
        need(self.layout in ("NCHW", "NHWC"), f"layout is NCHW or NHWC, got {self.layout!r:.20}")
        need(self.channels in ("RGB", "BGR"), f"channels are RGB or BGR, got {self.channels!r:.20}")
        need(len(self.mean) == 3 == len(self.std), "mean and std have three values each")
        need(all(abs(value) > 0 for value in self.std), "std must not be 0")
        left, top, right, bottom = self.crop if len(self.crop) == 4 else (0, 0, 0, 0)
        need(0 <= left < right <= 1 and 0 <= top < bottom <= 1, f"crop is no part of the image: {self.crop}")

    def prepare(self, images: Images) -> Float32:
        """(B, R, R, 3) uint8 → what the network takes."""
        side = np.array([images.shape[2], images.shape[1]] * 2)
        left, top, right, bottom = np.round(np.array(self.crop) * side).astype(int)
        part = images[:, top : max(bottom, top + 1), left : max(right, left + 1)]
        way = cv2.INTER_AREA if part.shape[1] > self.size else cv2.INTER_LINEAR
        resized = [cv2.resize(image, (self.size, self.size), interpolation=way) for image in part]
        values = np.asarray(resized, np.float32).reshape(-1, self.size, self.size, 3) / np.float32(255)
        values -= np.array(self.mean, np.float32)
        values /= np.array(self.std, np.float32)
        if self.channels == "BGR":
            values = values[..., ::-1]
        if self.layout == "NCHW":
            values = values.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(values)


@dataclass(frozen=True)
class Output:
    """One score: of the network's output ``output``, the entry ``index``, or the sum of all entries times
    ``weights`` (an expected age from probabilities); then times ``scale`` plus ``offset``."""

    name: str
    output: str = ""
    index: int = 0
    weights: tuple[float, ...] = ()
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class NetworkDescription:
    """What a JSON file beside an ONNX network says of it (``docs/latents.md``)."""

    model: Path
    input_name: str
    image: ImageInput
    scores: tuple[Output, ...]


def read_description(path: str | Path) -> NetworkDescription:
    """The description of a network: from JSON, or of a bare ``.onnx`` from its shapes: RGB in [-1, 1], one
    score for each entry of each output. Raises ``BadModelFile``, ``BadArgument``."""
    from fastface.runtime import describe

    path = Path(path)
    given: dict[str, Any] = {}
    if path.suffix.casefold() == ".json":
        given = _read_json(path)
        model = path.parent / str(given.get("model", ""))
    else:
        model = path
    about = describe(model)
    image = given.get("input", {})
    if not isinstance(image, dict):
        raise BadModelFile(f"{path}: input must be an object")
    name = image.get("name") or next(iter(about.inputs), "")
    if name not in about.inputs:
        raise BadModelFile(f"{model}: no input {name!r:.40}, it has {', '.join(about.inputs)}")
    shape = about.inputs[name].shape
    layout = image.get("layout") or ("NHWC" if len(shape) == 4 and shape[3] == 3 else "NCHW")
    size = image.get("size") or (shape[1] if layout == "NHWC" else shape[-1] if shape else 0)
    known = {field.name for field in fields(ImageInput)}
    try:
        unknown = set(image) - known - {"name"}
        if unknown:
            raise BadArgument(f"input has no setting {sorted(unknown)[0]!r:.40}; it has {sorted(known)}")
        settings: dict[str, Any] = {
            key: tuple(float(number) for number in value) if key in ("mean", "std", "crop") else value
            for key, value in image.items()
            if key in known
        }
        wanted = ImageInput(**{**settings, "layout": layout, "size": int(size)})
        scores = _outputs(given.get("scores"), about.outputs, path.stem)
    except (TypeError, ValueError) as error:
        raise BadModelFile(f"{path}: {error}") from None
    return NetworkDescription(model, name, wanted, scores)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_DESCRIPTION:
            raise BadModelFile(f"{path}: a description of more than {_MAX_DESCRIPTION >> 10} KiB")
        given = json.loads(path.read_bytes())
    except OSError as error:
        raise BadModelFile(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise BadModelFile(f"{path}: not JSON ({error})") from None
    if not isinstance(given, dict) or not isinstance(given.get("model"), str):
        raise BadModelFile(f"{path}: wanted an object with a model, the name of the .onnx file")
    return given


def _outputs(given: Any, outputs: Any, stem: str) -> tuple[Output, ...]:
    if given is None:
        found: list[Output] = []
        for output, spec in outputs.items():
            count = 1
            for length in spec.shape[1:]:
                if not isinstance(length, int):
                    raise BadModelFile(f"{stem}: the output {output} has no fixed size; describe it in JSON")
                count *= length
            base = stem if len(outputs) == 1 else f"{stem}.{output}"
            found += [Output(base if count == 1 else f"{base}.{i}", output, i) for i in range(count)]
        return tuple(found)
    if not isinstance(given, dict) or not given:
        raise BadModelFile(f"{stem}: scores must be an object: name → output, index or weights")
    found = []
    for name, entry in given.items():
        made = Output(
            name,
            str(entry.get("output") or next(iter(outputs))),
            int(entry.get("index", 0)),
            tuple(float(weight) for weight in entry.get("weights", ())),
            float(entry.get("scale", 1)),
            float(entry.get("offset", 0)),
        )
        if made.output not in outputs:
            raise BadModelFile(f"{stem}: no output {made.output!r:.40}, it has {', '.join(outputs)}")
        found.append(made)
    return tuple(found)


class OnnxScorer:
    """Scores by an ONNX network, from ``net.onnx`` or a description of it in JSON."""

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        """Raises ``BadModelFile``, ``BadArgument``, ``ProviderUnavailable``."""
        from fastface.runtime import Session

        self.description = read_description(path)
        self._session = Session(self.description.model, providers=["cpu"], threads=threads)
        self.names = tuple(output.name for output in self.description.scores)
        state = hashlib.sha256(self.description.model.read_bytes())
        state.update(repr((self.description.image, self.description.scores)).encode())
        self.digest = state.hexdigest()
        spec = self._session.inputs[self.description.input_name]
        self._one_by_one = isinstance(spec.shape[0], int)

    def __call__(self, images: Images) -> Float32:
        prepared = self.description.image.prepare(images)
        groups = np.split(prepared, len(prepared)) if self._one_by_one else [prepared]
        rows = [self._scored(group) for group in groups]
        return np.concatenate(rows) if rows else np.empty((0, len(self.names)), np.float32)

    def _scored(self, values: Float32) -> Float32:
        made = self._session.run({self.description.input_name: values})
        scores = np.empty((len(values), len(self.names)), np.float32)
        for column, wanted in enumerate(self.description.scores):
            output = np.asarray(made[wanted.output], np.float64)
            if output.size % len(values):
                raise BadModelFile(f"{wanted.name}: the output {wanted.output} is {output.shape}")
            flat = output.reshape(len(values), -1)
            if wanted.weights and len(wanted.weights) != flat.shape[1]:
                raise BadModelFile(
                    f"{wanted.name}: {len(wanted.weights)} weights for {flat.shape[1]} entries"
                )
            if not -flat.shape[1] <= wanted.index < flat.shape[1]:
                raise BadModelFile(f"{wanted.name}: no entry {wanted.index} of {flat.shape[1]}")
            value = flat @ np.array(wanted.weights) if wanted.weights else flat[:, wanted.index]
            scores[:, column] = value * wanted.scale + wanted.offset
        return scores
