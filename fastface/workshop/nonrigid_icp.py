"""Non-rigid iterative closest points: Amberg, Romdhani, Vetter, "Optimal Step Nonrigid ICP Algorithms for
Surface Registration", CVPR 2007.

Every vertex v has an affine map X_v (4 × 3), and with fixed correspondences u_v the maps that minimise

    m sum_v w_v^2 |[v 1] X_v - u_v|^2  +  alpha^2 sum_edges k^2 |(X_a - X_b)^T G|_F^2
        +  beta^2 sum_l c_l^2 |landmark_l - target_l|^2  +  hold^2 |X - X_before|_F^2

are the solution of one sparse linear system (their equations 3, 7, 9 to 12; G weighs the translation against
the rest by gamma, here 1 for a head of about unit size). Two things are not theirs: ``m`` is 6000 over the
number of vertices, so that a coarse mesh and a fine one are equally stiff; and the last term keeps what the
scan lacks from drifting where stiffness alone says little.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.importers.published import workshop

Float64 = NDArray[np.float64]

SCALE_MM: Final = 100.0
_HOLD: Final = 0.02
_VERTICES: Final = 6000.0


class Deformation:
    """The maps of a mesh ``vertices (N, 3)`` mm with ``faces (F, 3)``; ``stiffer (N,)`` multiplies the
    stiffness around a vertex."""

    def __init__(self, vertices: Float64, faces: NDArray[Any], stiffer: Float64) -> None:
        sparse = workshop("scipy.sparse")
        count = len(vertices)
        self._centre = vertices.mean(axis=0)
        self._homogeneous = np.column_stack([(vertices - self._centre) / SCALE_MM, np.ones(count)])
        edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        edges = np.unique(np.sort(edges, axis=1), axis=0)
        strength = np.sqrt(stiffer[edges[:, 0]] * stiffer[edges[:, 1]])
        rows = np.arange(len(edges))
        incidence = sparse.csr_matrix(
            (np.r_[strength, -strength], (np.r_[rows, rows], edges.T.ravel())), shape=(len(edges), count)
        )
        self._stiffness = sparse.kron(incidence.T @ incidence, sparse.identity(4)).tocsc()
        columns = np.arange(4 * count)
        self._data = sparse.csr_matrix(
            (self._homogeneous.ravel(), columns, np.arange(0, 4 * count + 1, 4)), shape=(count, 4 * count)
        )
        self._hold = _HOLD**2 * sparse.identity(4 * count, format="csc")
        self.maps = np.tile(np.vstack([np.eye(3), np.zeros(3)]), (count, 1))

    @property
    def vertices(self) -> Float64:
        """(N, 3) where the maps take the mesh, mm."""
        placed: Float64 = self._data @ self.maps * SCALE_MM + self._centre
        return placed

    def solve(
        self,
        targets: Float64,
        weights: Float64,
        stiffness: float,
        marks: tuple[NDArray[Any], Float64, Float64, Float64],
    ) -> float:
        """Move on to ``targets (N, 3)`` mm with ``weights (N,)``, 0 for a vertex without one; ``marks``:
        vertices (L, 3) and their weights (L, 3), targets (L, 3) mm, and how much each landmark counts (L,).
        Returns the largest of the vertices' moves, mm."""
        sparse = workshop("scipy.sparse")
        before = self.vertices
        corners, shares, places, counts = marks
        landmark = (
            sparse.csr_matrix(
                (shares.ravel(), corners.ravel(), np.arange(0, 3 * len(corners) + 1, 3)),
                shape=(len(corners), len(before)),
            )
            @ self._data
        )
        squared = weights**2 * (_VERTICES / len(before))
        believed = sparse.diags(counts**2)
        left = (
            stiffness**2 * self._stiffness
            + self._data.T @ sparse.diags(squared) @ self._data
            + landmark.T @ believed @ landmark
            + self._hold
        )
        right = (
            self._data.T @ (squared[:, None] * (targets - self._centre) / SCALE_MM)
            + landmark.T @ (counts[:, None] ** 2 * (places - self._centre) / SCALE_MM)
            + _HOLD**2 * self.maps
        )
        factor = workshop("scipy.sparse.linalg").splu(
            left.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )
        self.maps = factor.solve(right)
        return float(np.linalg.norm(self.vertices - before, axis=1).max())
