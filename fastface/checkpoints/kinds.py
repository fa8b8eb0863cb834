"""The kinds of generator, and who can tell a checkpoint of each."""

from __future__ import annotations

from typing import Final

from fastface.checkpoints.stylegan import recognise_stylegan2, recognise_stylegan3
from fastface.checkpoints.tensors import Recogniser
from fastface.checkpoints.translation import recognise_ganimation, recognise_stargan, recognise_starganv2

#: Tried in this order; the first that knows a file has it.
RECOGNISERS: Final[dict[str, Recogniser]] = {
    "stylegan2": recognise_stylegan2,
    "stylegan3": recognise_stylegan3,
    "starganv2": recognise_starganv2,
    "ganimation": recognise_ganimation,
    "stargan": recognise_stargan,
}
