"""A picture of one registration, to be looked at: the scan, the template, the template on the scan, and how
far it is from it."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.contact_sheet import contact_sheet
from fastface.importers.pointing import Bare, drawn
from fastface.painted_face import facing_view
from fastface.workshop.registered import Registered
from fastface.workshop.scans import Scan
from fastface.workshop.template import Template

Float64 = NDArray[np.float64]
Image = NDArray[np.uint8]

_SIZE_PX: Final = 360
_MOST_MM: Final = 1.0
_NOT_SEEN: Final = (150.0, 150.0, 158.0)
#: Blue over green and yellow to red: none, a third, two thirds, all of ``_MOST_MM``.
_HEAT: Final = ((52.0, 82.0, 180.0), (90.0, 190.0, 140.0), (250.0, 220.0, 90.0), (200.0, 30.0, 40.0))
_YAWS_DEG: Final = (-15.0, 40.0)


def registration_picture(template: Template, scan: Scan, found: Registered) -> Image:
    """(H, W, 3) uint8: four columns, from the front and from a side."""
    scale, turn = float(found.record["unit_mm"]), np.array(found.record["rotation"])
    placed = scale * scan.vertices @ turn.T + np.array(found.record["translation_mm"])
    own = scan.vertex_colors()
    looks: NDArray[Any] = _plain(len(placed)) if own is None else own.astype(np.float64)
    on = found.vertices.astype(np.float64)
    tiles = [
        [
            _tile(placed, _outward(placed, scan.triangles), looks, yaw),
            _tile(template.vertices, template.triangles, _plain(len(on)), yaw),
            _tile(on, template.triangles, _plain(len(on)), yaw),
            _tile(on, template.triangles, _heat(found.residual_mm), yaw),
        ]
        for yaw in _YAWS_DEG
    ]
    left = found.record["median_mm"]
    far = "nothing seen" if left is None else f"{left:.2f} mm off, red {_MOST_MM:g}"
    return contact_sheet(tiles, ["scan", "template", "registered", far], tile_px=_SIZE_PX)


def _plain(count: int) -> Float64:
    return Bare.plain(np.zeros((count, 3)), np.zeros((0, 3), np.int32)).colour


def _heat(residual_mm: NDArray[np.float32]) -> Float64:
    """(V, 3) colours of distances; grey where there is none."""
    share = np.clip(np.nan_to_num(residual_mm.astype(np.float64)) / _MOST_MM, 0, 1)
    stops = np.linspace(0, 1, len(_HEAT))
    colours = np.stack([np.interp(share, stops, channel) for channel in zip(*_HEAT, strict=True)], axis=1)
    colours[np.isnan(residual_mm)] = _NOT_SEEN
    return colours


def _outward(vertices: Float64, triangles: NDArray[np.int32]) -> NDArray[np.int32]:
    """Triangles wound outwards: those in front of the head's middle look to the front."""
    corners = vertices[triangles]
    ahead = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2]
    face = (np.abs(corners[:, :, 0].mean(axis=1)) < 50) & (corners[:, :, 2].mean(axis=1) > 0)
    return triangles if ahead[face].sum() >= 0 else np.ascontiguousarray(triangles[:, ::-1])


def _tile(vertices: Float64, triangles: NDArray[np.int32], colour: Float64, yaw_deg: float) -> Image:
    view = facing_view(yaw_deg, size_px=_SIZE_PX)
    return drawn(Bare(vertices, triangles, colour), np.eye(3), np.zeros(3), 1.0, view, 0)[0]
