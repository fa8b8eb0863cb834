"""What the options of a command ask a face to show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastface.affect import Affect
    from fastface.head_pose import HeadPose


def parse_action_units(words: list[str]) -> dict[str, float]:
    """["AU1=1", "au12=0.8"] → {"AU1": 1.0, "AU12": 0.8}. Raises ``BadAffect``."""
    from fastface.action_units import AU_COLUMNS
    from fastface.affect_csv import checked_number
    from fastface.errors import BadAffect

    spelling = {name.casefold(): name for name in AU_COLUMNS}
    asked: dict[str, float] = {}
    for word in words:
        name, found, value = word.partition("=")
        if not found:
            raise BadAffect(f"--au wants NAME=INTENSITY such as AU12=0.8, got {word!r:.40}")
        name = spelling.get(name.strip().casefold(), name.strip())
        if name in asked:
            raise BadAffect(f"--au {name} is given twice")
        asked[name] = checked_number(value, f"--au {name}", 0.0, 1.0)
    return asked


def levels(intensities: Sequence[float] | None, steps: int | None) -> list[float]:
    """The intensities that ``--intensity`` names, or ``--steps`` counts: even ones from 0 to 1. Raises
    ``BadArgument``, ``BadAffect``."""
    from fastface.affect_csv import checked_number
    from fastface.errors import BadArgument

    if steps is None:
        checked = (checked_number(value, "--intensity", 0.0, 1.0) for value in intensities or [1.0])
        return list(dict.fromkeys(round(value, 4) for value in checked))  # as exact as labels are
    if intensities:
        raise BadArgument("--steps makes even intensities, --intensity names them; give one")
    return [index / (steps - 1) for index in range(steps)]


def views(yaws: Sequence[float] | None, pitch: float = 0.0, roll: float = 0.0) -> list[HeadPose]:
    """A pose for each ``--yaw``, each once; as the photo is, if there is none. Raises ``BadAffect``."""
    from fastface.affect_csv import checked_number
    from fastface.head_pose import LIMITS, HeadPose

    found = []
    for yaw in dict.fromkeys(yaws or [0.0]):
        turn = {"yaw": yaw, "pitch": pitch, "roll": roll}
        checked = {
            f"{name}_deg": checked_number(value, f"--{name}", -LIMITS[f"{name}_deg"], LIMITS[f"{name}_deg"])
            for name, value in turn.items()
        }
        found.append(HeadPose(**checked))
    return found


def view_name(pose: HeadPose, poses: Sequence[HeadPose]) -> str:
    """What a view adds to a file's name: .yaw-30, .yaw+00.roll+10; nothing to the photo's own if it is the
    only one."""
    if len(poses) == 1 and not any(pose.row()):
        return ""
    turns = {"yaw": pose.yaw_deg, "pitch": pose.pitch_deg, "roll": pose.roll_deg}
    return "".join(f".{name}{turn + 0.0:+03g}" for name, turn in turns.items() if name == "yaw" or turn)


def affects(
    expressions: Sequence[str] | None,
    aus: list[str] | None,
    va: tuple[float, float] | None,
    pain: float | None,
) -> dict[str, Affect]:
    """What each of the options names, at full strength, by a short name. Raises ``BadAffect``."""
    from fastface.affect import Affect

    found: dict[str, Affect] = {}
    for name in expressions or []:
        found[name.casefold()] = Affect.expression(name.casefold())
    if aus:
        units = Affect.aus(parse_action_units(aus))
        found["_".join(name for name, _ in units.parts) or "neutral"] = units
    if va is not None:
        point = Affect.va(*va)
        found[point.slug] = point
    if pain is not None:
        found[f"pain{pain:g}"] = Affect.pain(pain)
    return found


def at_levels(bases: Sequence[Affect], strengths: Sequence[float]) -> list[Affect]:
    """Each affect at each intensity, no two the same: neutral comes once. Raises ``BadAffect`` where two
    files would have one name."""
    from fastface.errors import BadAffect

    shown = list(dict.fromkeys(base.scaled(strength) for base in bases for strength in strengths))
    names = [affect.slug for affect in shown]
    if len(set(names)) < len(names):
        doubled = max(names, key=names.count)
        raise BadAffect(f"two outputs would be named {doubled}; intensities differ by 0.01 at least")
    return shown


def varied(affect: Affect, variants: Sequence[int]) -> list[Affect]:
    """Variants of a point of valence and arousal; without any, the affect itself."""
    from dataclasses import replace

    return [replace(affect, variant=number) for number in variants] or [affect]
