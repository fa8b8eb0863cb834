"""What a user can install today in the place of each op. Each peer is made ready once and then called."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Peer = Callable[[], Any]


def numpy_deform(neutral: Floats, basis: Floats, coefficients: Floats, camera: Floats) -> Peer:
    """A matrix product in float32 (BLAS), then the projection."""
    flat = basis.reshape(len(basis), -1)
    f_px, c_x, c_y = (camera[0, i] for i in range(3))

    def run() -> tuple[Floats, Floats]:
        positions = (coefficients @ flat).reshape(len(coefficients), -1, 3) + neutral
        screen = positions.copy()
        scale = f_px / positions[..., 2]
        screen[..., 0] = positions[..., 0] * scale + c_x
        screen[..., 1] = positions[..., 1] * scale + c_y
        return positions, screen

    return run


VERTEX_SHADER = """
#version 330
in vec3 screen;
uniform vec2 size;
uniform vec2 depths;
void main() {
    vec2 at = screen.xy / size * 2.0 - 1.0;
    gl_Position = vec4(at, (screen.z - depths.x) / (depths.y - depths.x) * 2.0 - 1.0, 1.0);
}
"""
FRAGMENT_SHADER = """
#version 330
out int triangle;
void main() { triangle = gl_PrimitiveID; }
"""


def moderngl_rasterize(
    screen: Floats, triangles: NDArray[np.int32], height: int, width: int, cull: bool
) -> Peer | None:
    """Triangle index per pixel by OpenGL without a window (llvmpipe where there is no GPU), read back."""
    try:
        moderngl: Any = import_module("moderngl")
        context = moderngl.create_context(standalone=True, backend="egl")
    except Exception:  # not installed, or no driver: moderngl raises its own and the loader's errors
        return None
    program = context.program(vertex_shader=VERTEX_SHADER, fragment_shader=FRAGMENT_SHADER)
    program["size"].value = (width, height)
    program["depths"].value = (float(screen[..., 2].min()) - 1, float(screen[..., 2].max()) + 1)
    vertices = context.buffer(screen[0].tobytes())
    mesh = context.vertex_array(program, [(vertices, "3f", "screen")], context.buffer(triangles.tobytes()))
    target = context.renderbuffer((width, height), 1, dtype="i4")
    frame = context.framebuffer([target], context.depth_renderbuffer((width, height)))
    frame.use()
    context.enable(moderngl.DEPTH_TEST)
    if cull:
        context.enable(moderngl.CULL_FACE)
        context.front_face = "cw"  # rows run down the image
    out = bytearray(height * width * 4)

    def run() -> NDArray[np.int32]:
        vertices.write(screen[0])
        frame.clear(-1.0)
        mesh.render()
        frame.read_into(out, components=1, dtype="i4")
        return np.frombuffer(out, np.int32).reshape(height, width)

    return run


class PoissonSystem:
    """The masked equation as a sparse matrix over the unknowns; rows in image order."""

    def __init__(self, photo: Bytes, source: Floats, mask: Bytes) -> None:
        from scipy.sparse import coo_matrix

        self.photo, self.source, self.inside = photo, source, mask != 0
        count = int(self.inside.sum())
        number = np.full(mask.shape, -1)
        number[self.inside] = np.arange(count)
        rows, columns = [], []
        degree = np.zeros(mask.shape)
        around = np.zeros(photo.shape)
        for here, there in _neighbour_slices():
            degree[here] += 1
            linked = self.inside[here] & self.inside[there]
            rows.append(number[here][linked])
            columns.append(number[there][linked])
            around[here] += np.where(self.inside[there][..., None], 0, photo[there])
            around[here] += source[here].astype(np.float64) - source[there]
        diagonal = np.arange(count)
        row, column = np.concatenate([*rows, diagonal]), np.concatenate([*columns, diagonal])
        values = np.concatenate([np.full(len(row) - count, -1.0), degree[self.inside]])
        self.matrix = coo_matrix((values, (row, column)), shape=(count, count)).tocsc()
        self.right = around[self.inside]

    def image(self, solution: NDArray[np.float64]) -> NDArray[np.float64]:
        """The photo with the solution in its place, unrounded."""
        whole = self.photo.astype(np.float64)
        whole[self.inside] = solution
        return whole


def _neighbour_slices() -> list[tuple[Any, Any]]:
    first, last = slice(None, -1), slice(1, None)
    whole = slice(None)
    pairs = [((last, whole), (first, whole)), ((whole, last), (whole, first))]
    return pairs + [(there, here) for here, there in pairs]


# SuperLU at its best on a symmetric matrix.
SYMMETRIC: dict[str, Any] = {
    "permc_spec": "MMD_AT_PLUS_A",
    "diag_pivot_thresh": 0.0,
    "options": {"SymmetricMode": True},
}


def scipy_factor_and_solve(system: PoissonSystem) -> Peer:
    """SuperLU, factorised anew as a changing mask demands."""
    from scipy.sparse.linalg import splu

    return lambda: system.image(splu(system.matrix, **SYMMETRIC).solve(system.right))


def scipy_solve_only(system: PoissonSystem) -> Peer:
    """SuperLU with the mask's factors kept."""
    from scipy.sparse.linalg import splu

    factors = splu(system.matrix, **SYMMETRIC)
    return lambda: system.image(factors.solve(system.right))


def pyamg_solve(system: PoissonSystem) -> Peer | None:
    """Ruge-Stueben algebraic multigrid, set up anew, to a relative residual of 1e-3."""
    try:
        import pyamg
    except ImportError:
        return None

    def run() -> NDArray[np.float64]:
        solver = pyamg.ruge_stuben_solver(system.matrix.tocsr())
        columns = [solver.solve(system.right[:, c], tol=1e-3) for c in range(3)]
        return system.image(np.stack(columns, axis=1))

    return run


def opencv_clone(photo: Bytes, source: Floats, mask: Bytes) -> Peer:
    """cv2.seamlessClone: another problem (eroded mask, solved over its rectangle), the usual choice."""
    rows, columns = np.nonzero(mask)
    centre = (int(columns.min() + columns.max() + 1) // 2, int(rows.min() + rows.max() + 1) // 2)
    pasted = np.clip(source, 0, 255).astype(np.uint8)
    # It overwrites the mask it is given.
    return lambda: cv2.seamlessClone(pasted, photo, mask * np.uint8(255), centre, cv2.NORMAL_CLONE)
