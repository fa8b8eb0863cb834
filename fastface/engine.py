"""The thin API: fit a photo once, then render any affect of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface import ops
from fastface.affect import Affect, AffectPath, affect_model
from fastface.atomic import whole_file
from fastface.camera import Camera, angles_deg
from fastface.errors import BadAffect, BadArgument, BadModelFile, NoFaceFound, ProviderUnavailable
from fastface.fitting import FaceFitter, Fit
from fastface.folds import fold_weights
from fastface.head_models import open_model
from fastface.images import read_image
from fastface.labels import Labels, Pose
from fastface.landmarks import LandmarkDetector, landmarks68
from fastface.morphable import HeadModel
from fastface.rig import Rig, build_rig
from fastface.version import package_version
