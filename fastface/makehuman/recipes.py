"""What each expression is made of: face units, older expression units and sculpted folds.

Sources of the parts: ``face`` is the CC0 face unit of that ARKit name, ``unit`` MakeHuman's older expression
unit, averaged over its African, Asian and Caucasian variants. A unit of the whole mouth is cut to one side by
a smooth weight that adds up to 1 with its mirror image. What a movement should look like is taken from the
descriptions of the action units (Ekman, Friesen & Hager, Facial Action Coding System, 2002): AU1, 2, 4, 6, 9,
10, 12, 15, 17.

A recipe describes the subject's left side (x > 0); the right side is its mirror image. Coordinates are
millimetres on the mean head.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastface.makehuman.sculpt import Bump, Furrow, Shape


@dataclass(frozen=True)
class Recipe:
    """Weighted parts, folds on top, and how far closed lips stay closed (0…1).

    ``below``/``above`` limit the older units to the lower or upper lip (blend height in mm and half-width).
    """

    face: tuple[tuple[float, str], ...] = ()
    unit: tuple[tuple[float, str], ...] = ()
    shapes: tuple[Shape, ...] = ()
    seal: float = 0.0
    lip: str = "both"


def _nasolabial(depth_mm: float, width_mm: float = 4.2) -> Furrow:
    line = (
        (20.0, -36.0, 21.5),
        (25.5, -47.0, 21.5),
        (31.0, -57.0, 19.0),
        (34.5, -68.0, 15.5),
        (35.0, -76.0, 13.5),
    )
    return Furrow(line, depth_mm, width_mm)


SMILE = Recipe(
    face=((0.34, "mouthDimpleLeft"),),
    unit=((0.28, "mouth-corner-puller"), (0.22, "mouth-upward-retraction"), (0.30, "mouth-retraction")),
    shapes=(
        Bump((20.0, -41.0, 22.0), (7.0, 7.0, 12.0), (0.8, 0.6, 0.0)),
        Bump((17.0, -69.0, 30.0), (8.0, 8.0, 14.0), (1.0, 0.4, 0.0)),
        Bump((31.0, -52.0, 20.0), (12.0, 13.0, 16.0), (1.6, 0.4, 0.4)),
        Bump((40.0, -34.0, 15.0), (14.0, 11.0, 16.0), (1.4, 2.6, 1.6)),
        Bump((0.0, -64.0, 36.0), (12.0, 6.0, 14.0), (0.0, 1.1, -0.4)),
        _nasolabial(0.9),
    ),
    seal=1.0,
)

CHEEK_SQUINT = Recipe(
    face=((0.42, "cheekSquintLeft"), (0.22, "eyeSquintLeft")),
    shapes=(
        Bump((38.0, -27.0, 15.0), (12.0, 9.0, 14.0), (0.6, 2.0, 1.6)),
        Furrow(((25.0, -13.0, 17.0), (33.0, -15.5, 16.5), (42.0, -13.0, 12.0)), 0.7, 2.6),
        Furrow(((47.0, -3.0, 9.0), (54.0, -1.0, 3.0), (60.0, 1.0, -4.0)), 0.5, 2.4),
        Furrow(((47.0, -6.5, 9.0), (54.0, -8.5, 3.0), (60.0, -10.0, -4.0)), 0.5, 2.4),
    ),
)

NOSE_SNEER = Recipe(
    face=((0.35, "noseSneerLeft"),),
    unit=((0.75, "nose-left-elevation"),),
    shapes=(
        Bump((17.0, -22.0, 22.0), (9.0, 11.0, 14.0), (-1.0, 4.2, 1.0)),
        Bump((11.0, -60.0, 33.0), (8.0, 8.0, 14.0), (0.4, 2.6, -0.2)),
        Bump((12.0, 15.0, 28.0), (10.0, 9.0, 14.0), (-0.8, -3.2, 0.6)),
        Bump((0.0, -2.0, 27.0), (7.0, 7.0, 12.0), (0.0, 0.5, 0.5)),
        Furrow(((-13.0, 5.0, 22.0), (0.0, 3.0, 26.5), (13.0, 5.0, 22.0)), 0.45, 2.6),
        Furrow(((-14.0, -6.0, 19.0), (0.0, -4.5, 27.0), (14.0, -6.0, 19.0)), 0.45, 2.6),
        Furrow(((4.0, -12.0, 28.0), (9.0, -9.0, 25.0), (15.0, -9.5, 19.0)), 0.75, 2.5),
        Furrow(((5.0, -19.0, 31.0), (10.0, -15.0, 26.0), (17.0, -15.5, 19.0)), 0.75, 2.5),
        Furrow(
            ((16.0, -33.0, 24.0), (21.0, -40.0, 22.0), (26.0, -48.0, 21.5), (31.0, -57.0, 19.0)), 1.15, 3.8
        ),
    ),
)

UPPER_UP = Recipe(
    face=((0.25, "mouthUpperUpLeft"),),
    unit=((0.72, "mouth-elevation"),),
    shapes=(
        Bump((28.0, -36.0, 20.0), (10.0, 10.0, 14.0), (0.3, 2.2, 1.0)),
        Bump((18.0, -60.0, 29.0), (9.0, 8.0, 14.0), (0.5, 1.2, 0.0)),
        Furrow(
            ((17.0, -35.0, 23.0), (22.0, -43.0, 22.0), (27.0, -51.0, 21.0), (31.5, -60.0, 18.5)), 0.95, 3.8
        ),
    ),
)

BROW_DOWN = Recipe(
    face=((0.50, "browDownLeft"),),
    unit=((0.45, "eyebrows-left-down"),),
    shapes=(
        Bump((9.0, 19.0, 29.0), (6.0, 9.0, 12.0), (-1.2, -0.6, 1.2)),
        Furrow(((4.5, 10.0, 28.0), (5.0, 18.0, 30.0), (6.5, 28.0, 30.0)), 1.3, 2.6),
        Furrow(((-11.0, 5.5, 24.0), (0.0, 4.0, 27.0), (11.0, 5.5, 24.0)), 0.35, 2.8),
        Bump((24.0, 7.0, 23.0), (14.0, 5.0, 12.0), (0.0, -0.8, 0.6)),
    ),
)

INNER_UP = Recipe(
    face=((0.55, "browInnerUp"),),
    unit=((0.62, "eyebrows-left-inner-up"), (0.62, "eyebrows-right-inner-up")),
    shapes=(
        Bump((0.0, 24.0, 30.0), (20.0, 9.0, 14.0), (0.0, 1.8, 0.4)),
        Furrow(
            (
                (-26.0, 30.0, 26.0),
                (-11.0, 34.0, 29.0),
                (0.0, 32.5, 30.0),
                (11.0, 34.0, 29.0),
                (26.0, 30.0, 26.0),
            ),
            0.8,
            2.8,
        ),
        Furrow(
            (
                (-24.0, 39.0, 25.0),
                (-10.0, 42.5, 27.0),
                (0.0, 41.5, 27.5),
                (10.0, 42.5, 27.0),
                (24.0, 39.0, 25.0),
            ),
            0.7,
            3.0,
        ),
    ),
)

OUTER_UP = Recipe(
    face=((0.60, "browOuterUpLeft"),),
    unit=((0.40, "eyebrows-left-extern-up"), (0.25, "eyebrows-left-up")),
    shapes=(
        Furrow(((18.0, 34.0, 28.0), (32.0, 37.0, 24.0), (48.0, 33.0, 13.0)), 0.7, 2.8),
        Furrow(((16.0, 43.0, 26.5), (32.0, 46.0, 22.0), (48.0, 41.0, 11.0)), 0.6, 3.0),
    ),
)

RECIPES: dict[str, Recipe] = {
    "browDownLeft": BROW_DOWN,
    "browInnerUp": INNER_UP,
    "browOuterUpLeft": OUTER_UP,
    "cheekPuff": Recipe(face=((0.8, "cheekPuff"),), seal=1.0),
    "cheekSquintLeft": CHEEK_SQUINT,
    "jawForward": Recipe(face=((0.7, "jawForward"),), seal=1.0),
    "jawLeft": Recipe(face=((1.0, "jawLeft"),), seal=1.0),
    "mouthDimpleLeft": Recipe(
        face=((0.55, "mouthDimpleLeft"),),
        unit=((0.25, "mouth-retraction"),),
        shapes=(Bump((33.0, -74.0, 15.0), (4.0, 6.0, 8.0), (-0.6, 0.0, -1.6)),),
        seal=1.0,
    ),
    "mouthFrownLeft": Recipe(
        face=((0.75, "mouthFrownLeft"),),
        unit=((0.35, "mouth-depression"),),
        shapes=(Furrow(((29.0, -77.0, 17.0), (30.5, -86.0, 16.0), (30.0, -97.0, 13.0)), 0.9, 3.0),),
        seal=1.0,
    ),
    "mouthFunnel": Recipe(face=((0.35, "mouthFunnel"),), unit=((0.55, "mouth-protusion"),), seal=0.45),
    "mouthLeft": Recipe(face=((0.8, "mouthLeft"),), seal=1.0),
    "mouthLowerDownLeft": Recipe(
        face=((0.40, "mouthLowerDownLeft"),), unit=((0.55, "mouth-depression-retraction"),), lip="lower"
    ),
    "mouthPressLeft": Recipe(
        face=((0.35, "mouthPressLeft"), (0.2, "mouthRollLower"), (0.2, "mouthRollUpper")), seal=1.0
    ),
    "mouthPucker": Recipe(face=((0.3, "mouthPucker"),), unit=((0.7, "mouth-pursing"),), seal=1.0),
    "mouthRollLower": Recipe(face=((1.0, "mouthRollLower"),), seal=1.0),
    "mouthRollUpper": Recipe(face=((1.0, "mouthRollUpper"),), seal=1.0),
    "mouthShrugLower": Recipe(
        face=((1.0, "mouthShrugLower"),),
        shapes=(Bump((0.0, -104.0, 24.0), (11.0, 8.0, 14.0), (0.0, 2.6, 0.8)),),
        seal=1.0,
    ),
    "mouthShrugUpper": Recipe(face=((0.8, "mouthShrugUpper"),), seal=1.0),
    "mouthSmileLeft": SMILE,
    "mouthStretchLeft": Recipe(face=((0.9, "mouthStretchLeft"),), unit=((0.15, "neck-platysma"),), seal=1.0),
    "mouthUpperUpLeft": UPPER_UP,
    "noseSneerLeft": NOSE_SNEER,
    "tongueOut": Recipe(face=((0.30, "jawOpen"), (0.1, "mouthFunnel"))),
}
