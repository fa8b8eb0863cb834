"""A head that turns away from the photo's pose, as nodes between deform and rasterize."""

from __future__ import annotations

import math

import numpy as np

from fastface.binding import Binding
from fastface.exports.renderer_graph import Graph
from fastface.head_pose import LIMITS
from fastface.rig import Lead


def turn(
    g: Graph, bound: Binding, lead: Lead, pose: str, camera: str, positions: str, screen: str
) -> tuple[str, str, str]:
    """Whether each head turns (B, 1), and its vertices where that has moved them.

    ``pose (B, 4)`` is ``HeadPose.row``, clipped to ``LIMITS``; ``camera (C, 3)`` the window's.
    """
    return _Turn(g, bound, lead, camera).turned(pose, positions, screen)


class _Turn:
    """``TurningRenderer._turn``: the patch moves as a solid body, what follows its border is laid anew."""

    def __init__(self, g: Graph, bound: Binding, lead: Lead, camera: str) -> None:
        self._g, self._bound, self._lead = g, bound, lead
        for name, value in (*((f"at{i}", i) for i in range(5)), ("axis_last", -1)):
            g.constant(name, [value], np.int64)
        g.constant("pivot_mm", lead.pivot_mm.reshape(1, 1, 3))
        by_frame = g("Unsqueeze", camera, "at1")  # (C, 1, 3)
        self._focal, self._centre = self._columns(by_frame, 0, 1), self._columns(by_frame, 1, 3)

    def turned(self, pose: str, positions: str, screen: str) -> tuple[str, str, str]:
        g, lead = self._g, self._lead
        limits = np.array(list(LIMITS.values()), np.float32)
        pose = g("Min", g("Max", pose, g.constant("pose_least", -limits)), g.constant("pose_most", limits))
        turning = g("Greater", g("ReduceMax", g("Abs", pose), "at1", keepdims=1), "zero")
        rotation, forward = self._rotation(pose), self._columns(g("Unsqueeze", pose, "at1"), 3, 4)
        moved = self._moved(positions, rotation, forward)
        body = self._moved(g.constant("body_mm", lead.body_mm[None]), rotation, forward)
        place = self._place(moved)
        f_px, *centre = self._bound.camera[0]
        border_mm = self._bound.neutral[lead.border]
        rest_border = border_mm[:, :2] * (f_px / border_mm[:, 2:]) + np.array(centre, np.float32)
        rest_rows = g.constant("lead_rest_px", self._bound.shading.rest_px[lead.rows])
        border = g(
            "Sub", self._picked(place, "border", lead.border), g.constant("rest_border_px", rest_border)
        )
        away = g(
            "Mul", g.constant("body_share", lead.body_share[:, None]), g("Sub", self._place(body), rest_rows)
        )
        led = g("Add", rest_rows, g("MatMul", g.constant("lead_weights", lead.weights), border))
        rows = self._rows(positions, moved, place, g("Add", led, away))
        # Vertices that are led stand behind all others: (B, V + R, 3) → (B, V, 3).
        order = np.arange(len(self._bound.neutral))
        order[lead.rows] = len(order) + np.arange(len(lead.rows))
        g.constant("laid", order, np.int64)
        made_mm = g("Gather", g("Concat", moved, rows[0], axis=1), "laid", axis=1)
        made_px = g("Gather", g("Concat", place, rows[1], axis=1), "laid", axis=1)
        made = g("Concat", made_px, self._columns(made_mm, 2, 3), axis=2)
        each = g("Unsqueeze", turning, "at2")
        return turning, g("Where", each, made_mm, positions), g("Where", each, made, screen)

    def _rows(self, positions: str, moved: str, place: str, led: str) -> tuple[str, str]:
        """Where the led vertices come to lie, mm and px."""
        g, lead = self._g, self._lead
        share, own = lead.share[:, None], (1 - lead.share)[:, None]
        own_px = g("Mul", g.constant("own_share", own, np.float32), self._picked(place, "lead", lead.rows))
        px = g("Add", g("Mul", g.constant("lead_share", share), led), own_px)
        deep, flat = (
            self._columns(self._picked(points, "lead", lead.rows), 2, 3) for points in (moved, positions)
        )
        depth = g("Where", g.constant("partly", share < 1), deep, flat)
        xy = g("Mul", g("Sub", px, self._centre), g("Div", depth, self._focal))
        return g("Concat", xy, depth, axis=2), px

    def _picked(self, points: str, name: str, rows: object) -> str:
        return self._g("Gather", points, self._g.constant(f"{name}_vertices", rows, np.int64), axis=1)

    def _columns(self, points: str, start: int, end: int) -> str:
        return self._g("Slice", points, f"at{start}", f"at{end}", "axis_last")

    def _place(self, points: str) -> str:
        """(B, N, 3) mm → (B, N, 2) px of the window."""
        g = self._g
        scale = g("Div", self._focal, self._columns(points, 2, 3))
        return g("Add", g("Mul", self._columns(points, 0, 2), scale), self._centre)

    def _moved(self, points: str, rotation: str, forward: str) -> str:
        """(B or 1, N, 3) moved about the pivot (B, N, 3)."""
        g = self._g
        about = g("Add", g("MatMul", g("Sub", points, "pivot_mm"), rotation), "pivot_mm")
        return g("Sub", about, g("Mul", forward, g.constant("to_camera", [[[0, 0, 1]]], np.float32)))

    def _rotation(self, pose: str) -> str:
        """(B, 3, 3), of rows as vectors: the transpose of ``head_pose.rotation_of_pose``."""
        g = self._g
        turns = g("Mul", pose, g.constant("radian", np.float32(math.pi / 180)))
        turns = g("Unsqueeze", turns, "at1")
        cosines, sines = g("Cos", turns), g("Sin", turns)

        def about(axis: int, sign: int) -> str:
            """Of a rotation about one axis: what stays, what goes with the cosine, what with the sine."""
            first, second = (i for i in range(3) if i != axis)
            stays, cosine, sine = np.zeros((3, 3, 3), np.float32)
            stays[axis, axis] = cosine[first, first] = cosine[second, second] = 1
            sine[first, second], sine[second, first] = sign, -sign
            column = {1: 0, 0: 1, 2: 2}[axis]
            parts = [
                g("Mul", self._columns(values, column, column + 1), g.constant(f"{name}{axis}", part[None]))
                for name, values, part in (("cosine", cosines, cosine), ("sine", sines, sine))
            ]
            return g("Add", g("Add", *parts), g.constant(f"stays{axis}", stays[None]))

        return g("MatMul", g("MatMul", about(1, 1), about(0, -1)), about(2, 1))
