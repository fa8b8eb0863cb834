"""How far lids travel: a whole blink closes the eye of this person, and goes no further.

A head's ``eyeBlink`` closes the eye of its mean face, more or less. A narrower eye would be shut at half a
blink and its upper lid drawn far below the lower; a wider one would stay open by a slit.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.floating[Any]]

BLINKS: Final = ("eyeBlinkLeft", "eyeBlinkRight")
#: Of each eye, left first: landmarks of the upper lid's middle and those of the lower lid below them.
_LIDS: Final = (((385, 386, 387), (380, 374, 373)), ((158, 159, 160), (153, 145, 144)))
_CLOSED: Final = 1.1  # of the opening: landmarks lie on the lids' outer edges, which pass one another
#: Where the photo's eyes are all but shut there is no telling how far open they might be; and no lid goes
#: far beyond what was modelled.
_SHARES: Final = (0.4, 1.3)


def blink_share(open_px: Points, closed_px: Points, eye: int) -> float:
    """What the model's blink is to be multiplied by: landmarks ``open_px (478, 2)`` of the face at rest,
    ``closed_px`` after the model's own blink; ``eye`` 0 is the left.
    """
    upper, lower = (list(rows) for rows in _LIDS[eye])
    opening = open_px[lower] - open_px[upper]
    moved = closed_px - open_px
    closing = moved[upper] - moved[lower]
    power = max(float((closing * closing).sum()), 1e-6)
    return float(np.clip(_CLOSED * float((opening * closing).sum()) / power, *_SHARES))
