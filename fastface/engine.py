"""The thin API: fit a photo once, then render any affect of it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from threading import Lock
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from fastface import ops
from fastface.affect import Affect, AffectPath, TableAffectModel, affect_model
from fastface.affect_tables import HEAD_UNITS
from fastface.binding import Binding, bind
from fastface.class_model import AffectClasses
from fastface.device import Device, DeviceArray, cuda_problem, open_device
from fastface.device_rendering import DeviceRenderer, DeviceTurningRenderer
from fastface.displacement import displacement_px
from fastface.errors import BadAffect, BadArgument, BadModelFile, NoFaceFound
from fastface.face import FittedFace
from fastface.fitting import FaceFitter
from fastface.head_models import open_model
from fastface.head_pose import LIMITS, HeadPose, poses_of_action_units
from fastface.images import read_image
from fastface.labels import Labels, Pose
from fastface.landmarks import FaceLandmarks, LandmarkDetector, landmarks68
from fastface.morphable import HeadModel
from fastface.rendering import FaceRenderer, ImagePool, MovingLandmarks
from fastface.rig import RigBuilder
from fastface.texture_fitting import TextureFitter
from fastface.texture_model import DEFAULT_TEXTURE, TextureModel
from fastface.turning import TurningRenderer
from fastface.version import package_version

__all__ = ["Engine", "FittedFace", "Frame"]

Image = NDArray[np.uint8]
Float32 = NDArray[np.float32]

DEVICES: Final = ("cpu", "cuda", "auto")
MAX_COEFFICIENT: Final = 2.0  # beyond it no head model means anything
#: Logit 13.5. In foreheads with brows below, the networks see upside-down faces of up to 11.6 (108 photos cut
#: through the nose); real portraits upside down reach 16 to 26 (72 photos).
_SURE_UPSIDE_DOWN: Final = 0.9999986


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a stream: ``image (H, W, 3)`` uint8 RGB and its labels."""

    image: Image
    labels: Labels


class _Ready(NamedTuple):
    """A face that can be rendered."""

    bound: Binding
    renderer: FaceRenderer
    landmarks: MovingLandmarks
    photo: Image
    said: dict[str, Any]  # labels that all its frames share


class Engine:
    """Fits and renders with one head model.

    ``model``: "default", "ict", a path to a head model file or a ``HeadModel``. ``device``: "cpu", "cuda",
    "auto" (cuda where it is there) or a ``fastface.device.Device``; one that is not there raises
    ``ProviderUnavailable``. ``threads``: all cores if None. ``affects``: what valence and arousal look
    like, an ``AffectClasses`` or its file; the model that ships if None.

    On a device ``render`` and ``render_batch`` give ``DeviceArray``s, which stay there: torch and CuPy take
    them by DLPack, ``.numpy()`` copies them to the host. ``stream`` and ``mask`` give NumPy arrays.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | HeadModel = "default",
        *,
        device: str | Device = "cpu",
        threads: int | None = None,
        affects: str | os.PathLike[str] | AffectClasses | None = None,
    ) -> None:
        whole = isinstance(threads, int) and not isinstance(threads, bool)
        if threads is not None and not (whole and 1 <= threads <= 1024):
            raise BadArgument(f"threads must be 1 … 1024 or None, got {threads!r:.40}")
        self._on = _opened(device)
        self.device = "cpu" if self._on is None else self._on.kind
        self.model = open_model(model)
        self.threads = threads or _cores()
        self._affects, self._affects_name = _opened_affects(self.model.name, affects)
        self._fitter = FaceFitter(self.model)
        self._textured: dict[bool | TextureModel, TextureFitter] = {}
        self._rigs = RigBuilder(self._fitter)
        self._detector = LandmarkDetector()
        self._faces: WeakKeyDictionary[FittedFace, _Ready] = WeakKeyDictionary()
        self._turning: WeakKeyDictionary[FittedFace, TurningRenderer | DeviceTurningRenderer] = (
            WeakKeyDictionary()
        )
        self._lock = Lock()

    @property
    def made_with(self) -> dict[str, str]:
        """What the labels of all frames say of the models: the head's SHA-256, and name and SHA-256 of what
        says what valence and arousal look like."""
        return {
            "model_sha256": self.model.digest,
            "affect_model": self._affects_name,
            "affect_model_sha256": self._affects.classes.digest,
        }

    # ------------------------------------------------------------------------------------------- once a photo

    def fit(self, photo: object, *, texture: bool | TextureModel = False) -> FittedFace:
        """The largest face of a photo: a path, bytes, PIL image, numpy array or torch tensor.

        ``texture``: fit what the face looks like too, not its landmarks alone; True takes the texture model
        that ships with the default head. Slower; pose and shape come out nearer to the truth.

        Raises ``BadImage``; ``BadModelFile`` when there is no texture model for this head; ``NoFaceFound``
        when there is no face, or none that can be fitted: smaller than about 30 px, cut by the border, turned
        away by more than 50°.
        """
        rgb = read_image(photo)
        found = self._detector.detect(rgb, max_faces=1)
        if not found:
            raise NoFaceFound(f"wanted a photo with a face, found none in {rgb.shape[1]}x{rgb.shape[0]} px")
        return self._fitted(rgb, found[0], self._texture_fitter(texture))

    def fit_all(self, photo: object, *, max_faces: int = 16) -> list[FittedFace]:
        """Every face that can be fitted, the largest first. Raises ``BadImage``; ``NoFaceFound`` if none."""
        rgb = read_image(photo)
        faces: list[FittedFace] = []
        reason = "found none"
        for found in self._detector.detect(rgb, max_faces=max_faces):
            try:
                faces.append(self._fitted(rgb, found))
            except NoFaceFound as error:
                reason = str(error)
        if not faces:
            raise NoFaceFound(f"wanted a photo with a face that can be fitted: {reason}")
        return faces

    def _texture_fitter(self, texture: bool | TextureModel) -> TextureFitter | None:
        if texture is False:
            return None
        if not (texture is True or isinstance(texture, TextureModel)):
            raise BadArgument(f"texture must be True, False or a TextureModel, got {type(texture).__name__}")
        with self._lock:
            made = self._textured.get(texture)
            if made is None:
                model = TextureModel.load(DEFAULT_TEXTURE) if texture is True else texture
                model.check(self.model, "the texture that ships" if texture is True else "texture model")
                made = self._textured[texture] = TextureFitter(self._fitter, model)
        return made

    def _fitted(self, rgb: Image, found: FaceLandmarks, texture: TextureFitter | None = None) -> FittedFace:
        height, width = rgb.shape[:2]
        points = found.points_px
        fit = self._fitter.fit(points, height, width)
        if texture is not None:
            fit = texture.fit(rgb, points, fit)
        face = FittedFace(
            photo=rgb.copy() if rgb.base is not None else rgb,
            landmarks_px=points.copy(),
            rotation=fit.camera.rotation,
            translation_mm=fit.camera.translation_mm,
            focal_px=fit.camera.focal_px,
            identity=fit.identity,
            expression=fit.expression,
            fit_residual_px=fit.residual_px,
            model_hash=self.model.digest,
        )
        face.check()
        if abs(face.roll_deg) > 90 and found.score < _SURE_UPSIDE_DOWN:
            raise NoFaceFound(
                "wanted a whole face: what looks like one upside down is more likely the upper half of one "
                "that the photo's border cuts"
            )
        return face

    # ------------------------------------------------------------------------------------------- every frame

    def render(
        self,
        face: FittedFace,
        affect: Affect | None = None,
        *,
        coefficients: object = None,
        pose: HeadPose | None = None,
    ) -> Image:
        """One frame ``(H, W, 3)`` uint8 of the photo's size.

        ``affect``, or ``coefficients (E,)`` in the order of ``model.expression_names``; neutral, or neither,
        gives the photo exactly. ``pose`` turns the head away from the photo's pose, beside what AU51 to AU58
        of the affect ask for.

        Raises ``BadAffect``; ``BadModelFile`` when the face was fitted with another head model.
        """
        ready, asked = self._ready(face), _one(affect, self._adopted(coefficients), pose)
        out = self._images((1, *ready.photo.shape))
        self._draw(face, ready, asked, self._coefficients(asked), out)
        image: Image = out[0]
        return image

    def render_batch(
        self,
        face: FittedFace,
        affects: Sequence[Affect] | AffectPath | None = None,
        *,
        coefficients: object = None,
        pose: HeadPose | None = None,
        out: Image | None = None,
    ) -> Image:
        """Frames ``(B, H, W, 3)`` uint8, into ``out`` if given. ``coefficients`` is then (B, E).

        On a device ``coefficients`` and ``out`` may lie there, as ``DeviceArray`` or as another library's
        array: then nothing passes through the host, and coefficients are clipped to their limits instead of
        refused. Into an ``out`` of NumPy the frames are copied.

        Raises like ``render``, and ``BadArgument`` when ``out`` does not fit.
        """
        ready = self._ready(face)
        asked = _many(affects, self._adopted(coefficients), pose)
        rows = self._coefficients(asked)
        shape = (len(rows), *ready.photo.shape)
        images = self._images(shape) if out is None else self._adopted(out)
        _check_out(images, shape, self._on)
        self._draw(face, ready, asked, rows, images)
        return images if out is None else out

    def stream(
        self,
        face: FittedFace,
        path: AffectPath | Sequence[Affect] | None = None,
        *,
        coefficients: object = None,
        pose: HeadPose | None = None,
    ) -> Iterator[Frame]:
        """Frames one by one, rendered ahead by other threads while the caller works on the last ones.

        Memory is flat however long the path: an image is used again as soon as nobody refers to it. What
        ``render_batch`` would refuse is refused here at once, not on the way.
        """
        ready, asked = self._ready(face), _many(path, self._on_host(coefficients), pose)
        if asked.given is not None:  # the caller may go on to use its array
            asked = replace(asked, given=self._coefficients(asked).copy())
        return self._frames(face, ready, asked)

    def _frames(self, face: FittedFace, ready: _Ready, asked: _Asked) -> Iterator[Frame]:
        renderer = ready.renderer
        parts = renderer.groups(len(asked))
        groups = iter(parts)
        shape = (parts[0].stop if parts else 0, *ready.photo.shape)
        turns = asked.turns
        pool = ImagePool(shape) if self._on is None else ImagePool(shape, self._on.pinned)

        def made(group: slice, images: Image) -> tuple[Image, list[Labels]]:
            part = asked.part(group)
            rows = self._coefficients(part)
            if turns:
                self._draw(face, ready, part, rows, images[: len(rows)])
            else:
                renderer.render_group(rows, images[: len(rows)])
            return images, self._labels(ready, part, rows)

        coming: deque[Future[tuple[Image, list[Labels]]]] = deque()
        with ThreadPoolExecutor(renderer.lanes, thread_name_prefix="fastface-stream") as lanes:

            def begin(count: int) -> None:
                for group in islice(groups, count):
                    coming.append(lanes.submit(made, group, pool.take()))

            try:
                begin(renderer.lanes + 1)  # one more, so that no lane waits for a slower one
                while coming:
                    images, labels = coming.popleft().result()
                    begin(1)
                    for index, label in enumerate(labels):
                        yield Frame(images[index], label)
            finally:
                for group in coming:
                    group.cancel()

    def labels(
        self,
        face: FittedFace,
        affect: Affect | None = None,
        coefficients: object = None,
        pose: HeadPose | None = None,
    ) -> Labels:
        """The labels of the frame that ``render`` makes of the same arguments."""
        ready, asked = self._ready(face), _one(affect, self._on_host(coefficients), pose)
        return self._labels(ready, asked, self._coefficients(asked))[0]

    def mask(
        self,
        face: FittedFace,
        affect: Affect | None = None,
        *,
        coefficients: object = None,
        pose: HeadPose | None = None,
    ) -> Image:
        """(H, W) 1 where the frame may differ from the photo; elsewhere it is the photo, bit for bit."""
        ready, asked = self._ready(face), _one(affect, self._on_host(coefficients), pose)
        rows = self._coefficients(asked)
        if asked.turns:
            return self._turner(face).mask_turned(rows[0], asked.poses()[0])
        masked: Image = ready.renderer.mask(rows)[0]
        return masked

    def displacement(
        self, face: FittedFace, affect: Affect | None = None, *, coefficients: object = None
    ) -> Float32:
        """(H, W, 2) px right and down that what a pixel of that frame shows has moved since the photo."""
        ready, asked = self._ready(face), _one(affect, self._on_host(coefficients))
        return displacement_px(ready.bound, ready.renderer.deltas(self._coefficients(asked))[0])

    def unit_displacements(self, face: FittedFace, affect: Affect) -> dict[str, Float32]:
        """What each action unit that ``affect`` shows, at its intensity, does by itself: (H, W, 2) px each,
        without the photo's own expression giving way."""
        shown = self._affects.labels(affect).aus
        bound, names = self._ready(face).bound, self.model.expression_names
        return {
            name: displacement_px(bound, self._affects.coefficients(Affect.aus({name: value}), names))
            for name, value in shown.items()
            if name not in HEAD_UNITS
        }

    # ------------------------------------------------------------------------------------------- within

    def _coefficients(self, asked: _Asked) -> Any:
        """(B, E), in the order of the model's expressions."""
        names = self.model.expression_names
        given, affects = asked.given, asked.affects
        if given is not None:
            if given.shape[1] != len(names):
                raise BadAffect(
                    f"coefficients must have {len(names)} columns, one per expression of the head, got "
                    f"{given.shape[1]}"
                )
            if isinstance(given, DeviceArray):
                return given  # clipped where it lies: nothing waits to look at it
            if not (np.abs(given) <= MAX_COEFFICIENT).all():  # false for NaN
                raise BadAffect(f"coefficients must be finite and within ±{MAX_COEFFICIENT:g}")
            return given
        if isinstance(affects, AffectPath):
            return self._affects.batch(affects.kind, affects.columns, affects.values, names)
        return self._affects.rows(affects, names)

    def _draw(self, face: FittedFace, ready: _Ready, asked: _Asked, rows: Any, out: Any) -> None:
        if asked.turns:
            self._turner(face).render_turned(rows, asked.poses(), out)
        elif isinstance(out, DeviceArray) and isinstance(ready.renderer, DeviceRenderer):
            ready.renderer.render_on_device(rows, out)
        else:
            ready.renderer.render(rows, out)

    def _images(self, shape: tuple[int, ...]) -> Any:
        return np.empty(shape, np.uint8) if self._on is None else self._on.empty(shape, np.uint8)

    def _adopted(self, array: Any) -> Any:
        """What another library holds on this engine's device, as a ``DeviceArray``; all else as it is."""
        if self._on is None or not ops.is_on_gpu(array):
            return array
        return self._on.adopt(array)

    def _on_host(self, array: Any) -> Any:
        found = self._adopted(array)
        return found.numpy() if isinstance(found, DeviceArray) else found

    def _turner(self, face: FittedFace) -> TurningRenderer | DeviceTurningRenderer:
        with self._lock:
            turner = self._turning.get(face)
            if turner is None:
                rig = self._rigs.build(face.fit, face.photo, face.landmarks_px, turns=True)
                bound = bind(rig, face.photo, face.expression, self.model.expression_names)
                turner = self._turning[face] = (
                    TurningRenderer(bound, rig, self.threads)
                    if self._on is None
                    else DeviceTurningRenderer(bound, rig, self._on, self.threads)
                )
        return turner

    def _ready(self, face: FittedFace) -> _Ready:
        if not isinstance(face, FittedFace):
            raise BadArgument(f"wanted a FittedFace, from fit or FittedFace.load, got {type(face).__name__}")
        with self._lock:
            ready = self._faces.get(face)
            if ready is None:
                self._check(face)
                rig = self._rigs.build(face.fit, face.photo, face.landmarks_px)
                names = self.model.expression_names
                bound = bind(rig, face.photo, face.expression, names)
                renderer = (
                    FaceRenderer(bound, self.threads)
                    if self._on is None
                    else DeviceRenderer(bound, self._on, self.threads)
                )
                motion = self._fitter.landmark_motion(face.fit)
                landmarks = MovingLandmarks(face.landmarks_px, *motion, face.camera)
                ready = self._faces[face] = _Ready(bound, renderer, landmarks, face.photo, self._said(face))
        return ready

    def _check(self, face: FittedFace) -> None:
        if face.model_hash != self.model.digest:
            raise BadModelFile(
                f"the face was fitted with another head model ({face.model_hash[:12]}…) than this engine's "
                f"{self.model.name} ({self.model.digest[:12]}…)"
            )
        try:
            face.check()
            self._fitter.check(face.fit, face.landmarks_px)
        except NoFaceFound as error:
            raise BadModelFile(f"the face is none that can be rendered: {error}") from None

    def _said(self, face: FittedFace) -> dict[str, Any]:
        """What the labels of all frames of a face have in common."""
        height, width = face.photo.shape[:2]
        yaw, pitch, roll = face.yaw_deg, face.pitch_deg, face.roll_deg
        x, y, z = (float(t) for t in face.translation_mm)
        return {
            "pose": Pose(yaw, pitch, roll, (x, y, z), face.focal_px),
            "width_px": width,
            "height_px": height,
            "photo_sha256": face.photo_sha256,
            "engine_version": package_version(),
            **self.made_with,
        }

    def _labels(self, ready: _Ready, asked: _Asked, rows: Float32) -> list[Labels]:
        names = self.model.expression_names
        explained = (self._affects.explain(row, names) for row in rows)
        shown = explained if asked.given is not None else map(self._affects.labels, asked.affects)
        made = []
        deltas, poses, turns = ready.renderer.deltas(rows), asked.poses(), asked.turns
        for affect, row, delta, pose in zip(shown, rows, deltas, poses, strict=True):
            points = ready.landmarks.at(delta, pose)
            made.append(
                Labels(
                    expression=affect.expression,
                    intensity=affect.intensity,
                    aus=affect.aus,
                    valence=affect.valence,
                    arousal=affect.arousal,
                    coefficients=dict(zip(names, row.tolist(), strict=True)),
                    landmarks68_px=landmarks68(points),
                    landmarks478_px=points,
                    **(ready.said | {"pose": ready.landmarks.pose(pose)} if turns else ready.said),
                )
            )
        return made


@dataclass(frozen=True, slots=True)
class _Asked:
    """What to show, frame by frame: affects, or coefficients (B, E) that the caller brought; and one pose."""

    affects: Sequence[Affect] | AffectPath = ()
    given: Float32 | DeviceArray | None = None
    pose: HeadPose | None = None

    def __len__(self) -> int:
        return len(self.affects if self.given is None else self.given)

    def part(self, frames: slice) -> _Asked:
        return replace(
            self, affects=self.affects[frames], given=None if self.given is None else self.given[frames]
        )

    @property
    def turns(self) -> bool:
        """Whether what is asked can turn the head in any of these frames."""
        if self.pose is not None and any(self.pose.row()):
            return True
        if isinstance(self.affects, AffectPath):
            return any(name in HEAD_UNITS for name in self.affects.columns)
        return any(name in HEAD_UNITS for affect in self.affects for name, _ in affect.parts)

    def poses(self) -> NDArray[np.float64]:
        """(B, 4): the one pose and what the action units of each frame add to it, within limits."""
        poses = np.tile(np.array((self.pose or HeadPose()).row()), (len(self), 1))
        if isinstance(self.affects, AffectPath):
            poses += poses_of_action_units(self.affects.columns, self.affects.values)
        else:
            for pose, affect in zip(poses, self.affects, strict=False):
                names, values = zip(*affect.parts, strict=True) if affect.parts else ((), ())
                pose += poses_of_action_units(names, np.array([values], np.float64))[0]
        limit = np.array(list(LIMITS.values()))
        return np.asarray(np.clip(poses, -limit, limit), np.float64)


def _one(affect: object, coefficients: object, pose: object = None) -> _Asked:
    """One frame's; neutral if neither is given."""
    if affect is None and coefficients is not None:
        return _Asked(given=_rows(coefficients, 1)[None], pose=_pose(pose))
    return _many([Affect.neutral() if affect is None else affect], coefficients, pose)


def _many(affects: object, coefficients: object, pose: object = None) -> _Asked:
    if (affects is None) == (coefficients is None):
        raise BadArgument(f"wanted affects or coefficients, got {'neither' if affects is None else 'both'}")
    if affects is None:
        return _Asked(given=_rows(coefficients, 2), pose=_pose(pose))
    if isinstance(affects, AffectPath):
        return _Asked(affects, pose=_pose(pose))
    if not isinstance(affects, Iterable) or isinstance(affects, str | bytes):
        raise BadAffect(f"wanted a sequence of Affects or a path, got {type(affects).__name__}")
    listed = list(affects)
    for affect in listed:
        if not isinstance(affect, Affect):
            raise BadAffect(f"wanted an Affect, got {type(affect).__name__}")
    return _Asked(listed, pose=_pose(pose))


def _pose(pose: object) -> HeadPose | None:
    if pose is not None and not isinstance(pose, HeadPose):
        raise BadAffect(f"wanted a HeadPose, got {type(pose).__name__}")
    return pose


def _rows(coefficients: object, axes: int) -> Any:
    """Numbers of any kind as float32; too large ones become infinite and are refused later. On a device
    float32 alone will do."""
    if isinstance(coefficients, DeviceArray):
        if coefficients.ndim != axes or coefficients.dtype != np.float32 or not coefficients.contiguous:
            raise BadAffect(f"coefficients must have {axes} axes of contiguous float32, got {coefficients!r}")
        return coefficients
    try:
        rows = np.asarray(coefficients)
        if rows.dtype.kind not in "fiub":
            raise TypeError(f"got {rows.dtype}")
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(rows, np.float32)
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: tensors that need a gradient
        raise BadAffect(f"coefficients must be an array of numbers: {error}") from error
    if rows.ndim != axes:
        raise BadAffect(f"coefficients must have {axes} axes, got shape {rows.shape}")
    return rows


def _opened_affects(
    head: str, affects: str | os.PathLike[str] | AffectClasses | None
) -> tuple[TableAffectModel, str]:
    """The affect model and its name. Raises ``BadModelFile``."""
    if affects is None or isinstance(affects, AffectClasses):
        model = affect_model(head, affects)
        return model, model.family if affects is None else "own"
    try:
        return affect_model(head, AffectClasses.load(affects)), os.path.basename(affects)
    except BadModelFile as error:
        label = os.fspath(affects)
        raise BadModelFile(str(error) if label in str(error) else f"{label}: {error}") from None


def _opened(device: object) -> Device | None:
    """None is the processor."""
    if isinstance(device, Device):
        return device
    if device not in DEVICES:
        raise BadArgument(f"device must be one of {', '.join(DEVICES)}, got {device!r:.40}")
    if device == "cpu" or (device == "auto" and cuda_problem()):
        return None
    return open_device("cuda")


def _check_out(out: object, shape: tuple[int, ...], device: Device | None) -> None:
    if isinstance(out, DeviceArray) and device is not None and out.device is device:
        if out.shape == shape and out.dtype == np.uint8 and out.contiguous and out.writeable:
            return
        raise BadArgument(f"render_batch: out must be {shape} uint8, contiguous and writeable, got {out!r}")
    fits = isinstance(out, np.ndarray) and out.shape == shape and out.dtype == np.uint8
    if not (fits and isinstance(out, np.ndarray) and out.flags.c_contiguous and out.flags.writeable):
        got = f"{out.shape} {out.dtype}" if isinstance(out, np.ndarray) else type(out).__name__
        raise BadArgument(f"render_batch: out must be {shape} uint8, contiguous and writeable, got {got}")


def _cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1
