"""The engine: photos in, frames and labels out, and everything it must refuse."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fastface import ops
from fastface.affect import Affect
from fastface.affect_tables import EXPRESSIONS
from fastface.camera import rotation_of
from fastface.engine import Engine, FittedFace
from fastface.errors import (
    BadArgument,
    BadImage,
    FastfaceError,
    NoFaceFound,
)
from fastface.reference import PAINTED

Image = NDArray[np.uint8]
#: The slit between the lips, around.
INNER_LIPS = (
    *(78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308),
    *(324, 318, 402, 317, 14, 87, 178, 88, 95),
)
SMILE = Affect.expression("happy", 0.8)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(threads=2)


@pytest.fixture(scope="module")
def face(engine: Engine, portrait: Callable[..., Image]) -> FittedFace:
    return engine.fit(portrait("042"))


@pytest.fixture(scope="module")
def smiling(engine: Engine, portrait: Callable[..., Image]) -> FittedFace:
    return engine.fit(portrait("042", kind="smiling"))


def largest(a: Image, b: Image) -> int:
    return int(np.abs(a.astype(np.int16) - b).max())


# ------------------------------------------------------------------------------------------- neutral is exact


@pytest.mark.parametrize(
    "size", [(97, 131), (256, 256), (383, 257), (311, 640), (900, 899), (4000, 4000)], ids=str
)
def test_neutral_is_the_photo_and_the_mask_is_kept(
    engine: Engine, portrait: Callable[..., Image], size: tuple[int, int]
) -> None:
    """On every kind of photo: odd, wide, tall, small, huge, the face in a corner."""
    height, width = size
    side = min(size)
    photo = np.full((height, width, 3), 127, np.uint8)
    photo[-side:, :side] = portrait("086", side, side)
    face = engine.fit(photo)
    np.testing.assert_array_equal(engine.render(face), photo)
    np.testing.assert_array_equal(engine.render(face, Affect.neutral()), photo)
    np.testing.assert_array_equal(engine.render(face, Affect.va(0, 0)), photo)
    assert not engine.mask(face).any()
    frame, mask = engine.render(face, SMILE), engine.mask(face, SMILE)
    assert frame.shape == photo.shape
    assert mask.shape == size
    np.testing.assert_array_equal(frame[mask == 0], photo[mask == 0])
    assert largest(frame, photo) > 20
    assert 0.01 < mask.mean() < 0.8
    if side >= 256:  # the mouth itself moves
        x, y = face.landmarks_px[[13, 14]].mean(0).astype(int)
        assert mask[y, x] == 1


@pytest.mark.parametrize("name", ["019", "030", "117"])
def test_neutral_is_the_photo_of_everybody(engine: Engine, portrait: Callable[..., Image], name: str) -> None:
    for kind in ("neutral", "smiling"):
        photo = portrait(name, kind=kind)
        face = engine.fit(photo)
        np.testing.assert_array_equal(engine.render(face, Affect.neutral()), photo)


def test_outside_the_mask_no_affect_changes_a_pixel(engine: Engine, face: FittedFace) -> None:
    for name in EXPRESSIONS:
        affect = Affect.expression(name)
        frame, mask = engine.render(face, affect), engine.mask(face, affect)
        assert set(np.unique(mask)) == {0, 1}
        np.testing.assert_array_equal(frame[mask == 0], face.photo[mask == 0])
        changed = (frame != face.photo).any(axis=2)
        assert changed[mask == 1].mean() > 0.3, name  # a mask that is all of the photo would say nothing


def test_the_photo_is_a_copy(engine: Engine, portrait: Callable[..., Image]) -> None:
    photo = portrait("042")
    before = photo.copy()
    face = engine.fit(photo)
    photo[:] = 0
    np.testing.assert_array_equal(face.photo, before)
    frame = engine.render(face)
    frame[:] = 0
    np.testing.assert_array_equal(engine.render(face), before)


def test_a_photo_may_come_in_many_forms(
    engine: Engine, portrait: Callable[..., Image], tmp_path: Path
) -> None:
    from PIL import Image as Pillow

    photo = portrait("042")
    pillow = Pillow.fromarray(photo)
    pillow.save(tmp_path / "photo.png")
    wanted = engine.fit(photo)
    for form in (
        pillow,
        tmp_path / "photo.png",
        str(tmp_path / "photo.png"),
        (tmp_path / "photo.png").read_bytes(),
    ):
        found = engine.fit(form)
        np.testing.assert_array_equal(found.photo, wanted.photo)
        np.testing.assert_array_equal(found.landmarks_px, wanted.landmarks_px)


# --------------------------------------------------------------------------------- one frame, many, a stream


@pytest.fixture(scope="module")
def path() -> list[Affect]:
    return [
        *(Affect.expression("happy", i / 12) for i in range(13)),
        *(Affect.aus({"AU1": i / 5, "AU26": 1 - i / 5}) for i in range(6)),
        *(Affect.va(0.9 - i / 4, i / 4 - 0.5) for i in range(6)),
        Affect.neutral(),
    ]


def test_render_batch_and_stream_agree_bit_for_bit(
    engine: Engine, face: FittedFace, smiling: FittedFace, path: list[Affect]
) -> None:
    for one in (face, smiling):
        frames = np.stack([engine.render(one, affect) for affect in path])
        np.testing.assert_array_equal(engine.render_batch(one, path), frames)
        np.testing.assert_array_equal(engine.render_batch(one, path[3:6]), frames[3:6])
        streamed = [frame.image.copy() for frame in engine.stream(one, path)]
        np.testing.assert_array_equal(np.stack(streamed), frames)
        out = np.empty_like(frames)
        assert engine.render_batch(one, path, out=out) is out
        np.testing.assert_array_equal(out, frames)


def test_threads_change_nothing(engine: Engine, face: FittedFace, path: list[Affect]) -> None:
    frames = engine.render_batch(face, path)
    for threads in (1, 3, 8):
        other = Engine(engine.model, threads=threads)
        np.testing.assert_array_equal(other.render_batch(face, path), frames)


def test_callers_in_many_threads_get_the_same(engine: Engine, face: FittedFace, path: list[Affect]) -> None:
    frames = engine.render_batch(face, path)
    wrong: list[str] = []
    fresh = Engine(engine.model, threads=2)  # whose rig is built while others wait for it

    def call() -> None:
        for index, affect in enumerate(path):
            if (fresh.render(face, affect) != frames[index]).any():
                wrong.append(affect.slug)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_coefficients_are_the_other_way_in(engine: Engine, face: FittedFace, path: list[Affect]) -> None:
    names = engine.model.expression_names
    rows = np.stack([affect.coefficients(names) for affect in path])
    frames = engine.render_batch(face, path)
    np.testing.assert_array_equal(engine.render_batch(face, coefficients=rows), frames)
    np.testing.assert_array_equal(engine.render(face, coefficients=rows[12]), frames[12])
    np.testing.assert_array_equal(engine.render(face, coefficients=rows[12].tolist()), frames[12])
    np.testing.assert_array_equal(engine.render(face, coefficients=rows[12].astype(np.float64)), frames[12])
    np.testing.assert_array_equal(engine.mask(face, coefficients=rows[12]), engine.mask(face, path[12]))
    given = rows.copy()
    stream = engine.stream(face, coefficients=given)
    given[:] = np.nan  # the caller's array is its own again
    for index, frame in enumerate(stream):
        np.testing.assert_array_equal(frame.image, frames[index])
        assert frame.labels.coefficients["jawOpen"] == rows[index, names.index("jawOpen")]


def test_paths_are_sequences_too(engine: Engine, face: FittedFace) -> None:
    path = Affect.path([(0, 0, 0), (0.5, 0.8, 0.4)], fps=20)
    frames = engine.render_batch(face, path)
    assert len(frames) == len(path) == 11
    np.testing.assert_array_equal(frames, engine.render_batch(face, list(path)))
    np.testing.assert_array_equal(frames, [frame.image.copy() for frame in engine.stream(face, path)])
    assert engine.render_batch(face, []).shape == (0, *face.photo.shape)
    assert list(engine.stream(face, [])) == []
    assert list(engine.stream(face, coefficients=np.zeros((0, 52)))) == []


# ----------------------------------------------------------------------------------------- continuous, calm


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_intensity_is_continuous(engine: Engine, face: FittedFace, smiling: FittedFace, name: str) -> None:
    for one in (face, smiling):
        affects = [Affect.expression(name, i / 100) for i in (*range(0, 21), *range(50, 56), *range(95, 101))]
        frames = engine.render_batch(one, affects).astype(np.int16)
        steps = np.abs(np.diff(frames, axis=0))
        steps = np.delete(steps, [20, 26], axis=0)  # between the ranges
        assert steps.max() <= 90  # a pixel at an edge of teeth or lids
        assert np.quantile(steps, 0.9999, axis=(1, 2, 3)).max() <= 24
        assert steps.mean(axis=(1, 2, 3)).max() < 0.15
        near = np.abs(engine.render(one, Affect.expression(name, 0.001)).astype(np.int16) - one.photo)
        assert near.max() <= 6
        assert near.mean() < 0.03


def test_rising_intensity_moves_ever_further(engine: Engine, face: FittedFace) -> None:
    for name in EXPRESSIONS:
        affects = [Affect.expression(name, s) for s in (0.25, 0.5, 0.75, 1.0)]
        change = np.abs(engine.render_batch(face, affects).astype(np.int16) - face.photo).mean(axis=(1, 2, 3))
        assert (np.diff(change) > 0).all(), name


def track(engine: Engine, face: FittedFace, points: list[Any], fps: int) -> NDArray[np.float64]:
    """(N, 478, 2) landmarks over time, in outer-eye distances."""
    labels = [engine.labels(face, affect) for affect in Affect.path(points, fps)]
    return np.stack([one.landmarks478_px for one in labels]).astype(np.float64) / face.eye_distance_px


def fastest(motion: NDArray[np.float64], order: int) -> float:
    return float(np.linalg.norm(np.diff(motion, n=order, axis=0), axis=2).max())


def test_landmarks_move_without_jerks(engine: Engine, face: FittedFace) -> None:
    happy, sad, surprise = (Affect.expression(name) for name in ("happy", "sad", "surprise"))
    points = [(0, Affect.neutral()), (1, happy), (2, sad), (3, surprise), (4, Affect.neutral())]
    motion = track(engine, face, points, 60)
    assert fastest(motion, 1) > 0.003  # something moves
    assert fastest(motion, 2) < 0.005
    circle = [(0, 0, 0), (1, 0.8, 0.4), (2, -0.5, 0.6), (3, -0.6, -0.3), (4, 0, 0)]
    one, two = (track(engine, face, circle, fps) for fps in (60, 120))
    # A jump would be as large at any frame rate.
    assert fastest(two, 1) < 0.65 * fastest(one, 1)
    assert fastest(one, 2) < 0.02


def test_what_does_not_move_does_not_flicker(engine: Engine, face: FittedFace) -> None:
    path = Affect.path([(0, 0, 0), (0.5, 0.8, 0.5), (1, -0.6, 0.7), (1.5, -0.7, -0.3), (2, 0, 0)], fps=30)
    frames = np.stack([frame.image.copy() for frame in engine.stream(face, path)])
    changing = np.any([engine.mask(face, affect) for affect in path], axis=0)
    assert 0.05 < changing.mean() < 0.8
    still = ~changing
    assert (frames[:, still] == face.photo[still]).all()
    np.testing.assert_array_equal(frames[0], face.photo)
    np.testing.assert_array_equal(frames[-1], face.photo)


def test_labels_move_with_the_picture(engine: Engine, face: FittedFace) -> None:
    neutral = engine.labels(face)
    np.testing.assert_allclose(neutral.landmarks478_px, face.landmarks_px, atol=1e-3)
    assert neutral.expression == "neutral"
    smile = engine.labels(face, Affect.expression("happy"))
    assert smile.expression == "happy"
    assert smile.intensity == 1
    wider = [
        np.linalg.norm(labels.landmarks478_px[61] - labels.landmarks478_px[291])
        for labels in (neutral, smile)
    ]
    assert wider[1] > 1.03 * wider[0]
    opened = engine.labels(face, Affect.aus({"AU26": 1.0})).landmarks478_px - face.landmarks_px
    assert opened[152, 1] > 0.01 * face.eye_distance_px  # the chin goes down
    assert np.abs(opened[10]).max() < 0.005 * face.eye_distance_px  # the forehead stays
    np.testing.assert_array_equal(smile.landmarks68_px[48], smile.landmarks478_px[61])


def test_a_smile_that_is_there_gives_way(engine: Engine, portrait: Callable[..., Image]) -> None:
    face = engine.fit(portrait("117", kind="smiling"))
    raised = engine.labels(face, Affect.aus({"AU1": 0.6})).landmarks478_px
    smiling, gone = (float(np.linalg.norm(np.subtract(*p[[61, 291]]))) for p in (face.landmarks_px, raised))
    assert gone < 0.95 * smiling


def test_labels_say_what_was_asked(engine: Engine, face: FittedFace) -> None:
    labels = engine.labels(face, Affect.va(0.5, -0.3))
    assert (labels.valence, labels.arousal) == (0.5, -0.3)
    assert (labels.height_px, labels.width_px) == face.photo.shape[:2]
    assert (labels.photo_sha256, labels.model_sha256) == (face.photo_sha256, engine.model.digest)
    assert labels.pose.yaw_deg == face.yaw_deg
    assert set(labels.coefficients) == set(engine.model.expression_names)
    assert labels.aus
    brought = engine.labels(
        face, coefficients=Affect.expression("surprise").coefficients(engine.model.expression_names)
    )
    assert brought.expression == "surprise"
    assert brought.json()


# ------------------------------------------------------------------------------------- faces of many kinds


def test_two_faces_in_one_photo(engine: Engine, portrait: Callable[..., Image]) -> None:
    photo = np.hstack(
        [portrait("117", 300, 300), np.pad(portrait("030", 220, 220), ((0, 80), (0, 0), (0, 0)))]
    )
    left, right = engine.fit_all(photo)
    assert left.eye_distance_px > right.eye_distance_px
    assert left.landmarks_px[:, 0].max() < 300 < right.landmarks_px[:, 0].min()
    np.testing.assert_array_equal(engine.fit(photo).landmarks_px, left.landmarks_px)
    for one, own in ((left, np.s_[:, :300]), (right, np.s_[:, 300:])):
        frame = engine.render(one, SMILE)
        changed = (frame != photo).any(axis=2)
        assert changed[own].sum() > 0.97 * changed.sum() > 0
    with pytest.raises(BadArgument):
        engine.fit_all(photo, max_faces=0)


def seen_from_the_side(engine: Engine, face: FittedFace, yaw_deg: float) -> Image:
    """A picture of the fitted head turned about its axis, coloured from its photo."""
    model = engine.model
    vertices = model.shaped(face.identity, face.expression)
    colours = face.camera.project(face.camera.to_camera(vertices))
    height, width = face.photo.shape[:2]
    turned = replace(face, rotation=face.rotation @ rotation_of(np.radians([0, yaw_deg, 0]))).camera
    seen = turned.to_camera(vertices)
    screen = np.concatenate([turned.project(seen), seen[:, 2:]], axis=1).astype(np.float32)
    raster = ops.rasterize(screen[None], model.triangles, height, width)
    there = raster.triangle_id[0] >= 0
    corners = model.triangles[raster.triangle_id[0][there]]
    b = raster.bary[0][there]
    weights = np.stack([1 - b.sum(1), b[:, 0], b[:, 1]], axis=1)
    place = np.einsum("nc,ncx->nx", weights, colours[corners])
    picture = np.full_like(face.photo, 90)
    x, y = (np.clip(place[:, axis].astype(int), 0, (width, height)[axis] - 1) for axis in (0, 1))
    picture[there] = face.photo[y, x]
    return picture


@pytest.mark.parametrize("yaw", [-28.0, 28.0])
def test_a_turned_head_is_fitted_and_rendered(engine: Engine, face: FittedFace, yaw: float) -> None:
    photo = seen_from_the_side(engine, face, yaw)
    turned = engine.fit(photo)
    assert turned.yaw_deg - face.yaw_deg == pytest.approx(yaw, abs=8)
    np.testing.assert_array_equal(engine.render(turned), photo)
    for name in EXPRESSIONS:
        frame, mask = (
            engine.render(turned, Affect.expression(name)),
            engine.mask(turned, Affect.expression(name)),
        )
        np.testing.assert_array_equal(frame[mask == 0], photo[mask == 0])
        assert largest(frame, photo) > 20


def behind_the_lips(engine: Engine, face: FittedFace, affect: Affect) -> tuple[int, int]:
    """Pixels of teeth, gums, tongue and mouth: how many show, and how many of them not between the lips."""
    ready = engine._ready(face)
    renderer = ready.renderer
    row = affect.coefficients(engine.model.expression_names)[None]
    bound = ready.bound
    screen = ops.deform(bound.neutral, bound.basis, renderer.deltas(row), bound.camera).screen
    size = bound.window.height, bound.window.width
    found = ops.rasterize(screen, bound.shading.triangles, *size, cull_backfaces=True).triangle_id[0]
    painted = (found >= 0) & (bound.shading.layer[found] == PAINTED)
    rows, columns = bound.window.slices
    lips = ready.landmarks.at(renderer.deltas(row)[0])[list(INNER_LIPS)] - [columns.start, rows.start]
    opening = np.zeros(found.shape, np.uint8)
    cv2.fillPoly(opening, [np.rint(lips * 16 - 8).astype(np.int32)], 1, shift=4)
    reach = 2 * int(0.03 * face.eye_distance_px) + 3
    opening = np.asarray(cv2.dilate(opening, np.ones((reach, reach))), np.uint8)
    return int(painted.sum()), int((painted & (opening == 0)).sum())


@pytest.mark.parametrize("yaw", [-25.0, 0.0, 25.0])
def test_what_is_in_the_mouth_stays_behind_the_lips(engine: Engine, face: FittedFace, yaw: float) -> None:
    """This man's lips are thick: a fit that takes landmarks too literally makes them thinner than gums."""
    turned = engine.fit(seen_from_the_side(engine, face, yaw)) if yaw else face
    assert np.abs(turned.identity).max() < 7
    for name in EXPRESSIONS:
        shown, outside = behind_the_lips(engine, turned, Affect.expression(name))
        assert outside == 0, name
        assert shown > 20 or name in ("sad", "contempt"), name


@pytest.mark.parametrize("yaw", [-75.0, 75.0])
def test_a_profile_is_refused(engine: Engine, face: FittedFace, yaw: float) -> None:
    with pytest.raises(NoFaceFound):
        engine.fit(seen_from_the_side(engine, face, yaw))


def test_no_face_says_so(engine: Engine) -> None:
    rng = np.random.default_rng(0)
    gradient = np.tile(np.linspace(0, 255, 300, dtype=np.uint8)[:, None, None], (1, 200, 3))
    for photo in (
        np.zeros((1, 1, 3), np.uint8),
        np.full((200, 300, 3), 180, np.uint8),
        rng.integers(0, 256, (240, 240, 3), np.uint8),
        gradient,
        np.full((2, 3000, 3), 90, np.uint8),
    ):
        for fit in (engine.fit, engine.fit_all):
            with pytest.raises(NoFaceFound, match="wanted a photo with a face"):
                fit(photo)


def test_a_tiny_face_says_so(engine: Engine, portrait: Callable[..., Image]) -> None:
    photo = np.full((400, 400, 3), 150, np.uint8)
    photo[180:212, 180:212] = portrait("042", 32, 32)
    with pytest.raises(NoFaceFound, match=r"too small|found none"):
        engine.fit(photo)


@pytest.mark.parametrize("name", ["042", "097", "141"])
def test_a_face_cut_by_the_border_says_so(engine: Engine, portrait: Callable[..., Image], name: str) -> None:
    """Not even what is left of a face above the nose, which upside down looks like a whole one."""
    photo = portrait(name)
    points = engine.fit(photo).landmarks_px
    low, high = points.min(0), points.max(0)
    for part in (0.3, 0.45, 0.5, 0.55, 0.7):
        x, y = (low + part * (high - low)).astype(int)
        for cut in (photo[:, :x], photo[:, x:], photo[:y], photo[y:]):
            with pytest.raises(NoFaceFound):
                engine.fit(np.ascontiguousarray(cut))


def test_a_photo_upside_down_is_fitted(engine: Engine, portrait: Callable[..., Image]) -> None:
    photo = np.ascontiguousarray(portrait("042")[::-1, ::-1])
    face = engine.fit(photo)
    assert abs(face.roll_deg) > 165
    frame, mask = engine.render(face, SMILE), engine.mask(face, SMILE)
    np.testing.assert_array_equal(frame[mask == 0], photo[mask == 0])
    assert largest(frame, photo) > 20


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_a_face_at_the_border_is_rendered(engine: Engine, portrait: Callable[..., Image], side: str) -> None:
    """The chin or a cheek just beyond the photo: no harm."""
    photo = portrait("042")
    points = engine.fit(photo).landmarks_px
    (x0, y0), (x1, y1) = (np.quantile(points, q, axis=0).astype(int) for q in (0.03, 0.97))
    cut: Any = {"left": np.s_[:, x0:], "right": np.s_[:, :x1], "top": np.s_[y0:], "bottom": np.s_[:y1]}[side]
    photo = np.ascontiguousarray(photo[cut])
    face = engine.fit(photo)
    np.testing.assert_array_equal(engine.render(face), photo)
    for name in EXPRESSIONS:
        frame, mask = engine.render(face, Affect.expression(name)), engine.mask(face, Affect.expression(name))
        np.testing.assert_array_equal(frame[mask == 0], photo[mask == 0])
        assert largest(frame, photo) > 20


def test_odd_photos_raise_nothing_but_our_errors(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no photo")
    for photo in (b"", b"\xff\xd8\xff", tmp_path / "text.jpg", tmp_path / "missing.jpg", tmp_path):
        with pytest.raises(BadImage):
            engine.fit(photo)
    for thing in (None, 5, object(), [1, 2]):
        with pytest.raises(FastfaceError):
            engine.fit(thing)
