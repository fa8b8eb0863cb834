"""Every kernel once or a few times on the GPU, for compute-sanitizer to watch: no figures, no comparisons.

compute-sanitizer --tool racecheck python -m benchmarks.gpu_exercise
"""

from __future__ import annotations

import argparse

import cv2
import numpy as np

from benchmarks.bench_kernels import make_scene
from benchmarks.gpu_figures import DEMO
from fastface import Affect, Engine, ops
from fastface.device import Device, DeviceWorkspace, moved, open_device
from fastface.images import read_image


def exercise(device: Device) -> None:
    rng = np.random.default_rng(0)
    for side, modes, size, frames in ((12, 5, 33, 1), (30, 9, 96, 3), (20, 7, 64, 9)):
        scene = make_scene(side, modes, size)
        weights = rng.normal(0, 0.3, (frames, modes)).astype(np.float32)
        for dtype in (np.float32, np.float16):
            basis = moved(ops.pack_basis(scene.basis, dtype=dtype), device)
            model = (device.put(scene.neutral), basis, device.put(weights), device.put(scene.camera))
            mesh = ops.deform(*model)  # type: ignore[arg-type]
        raster = ops.rasterize(mesh.screen, device.put(scene.triangles), size, size, depth=True)  # type: ignore[arg-type]
        for part in (mesh.positions, raster.triangle_id, raster.bary, raster.depth):
            np.asarray(part)
        source = np.repeat(scene.source[None], frames, axis=0)
        for mask in (
            scene.mask,
            np.ones_like(scene.mask),
            scene.mask * 0,
            rng.random(scene.mask.shape) < 0.6,
        ):
            masks = np.repeat(np.asarray(mask, np.uint8)[None], frames, axis=0)
            workspace = DeviceWorkspace(device)  # new memory each time, so that nothing old makes do
            blended = (device.put(scene.photo), device.put(source), device.put(masks))
            np.asarray(ops.blend(*blended, exact=True, workspace=workspace).exact)  # type: ignore[arg-type]
    large = np.array([[[-900, -900, 5], [900, -20, 6], [-20, 900, 7], [1e9, 3, 5], [-3e9, 4, 6]]], np.float32)
    corners = np.array([[0, 1, 2], [0, 3, 4], [0, 9, 1]], np.int32)
    np.asarray(ops.rasterize(device.put(large), device.put(corners), 64, 50).triangle_id)  # type: ignore[arg-type]
    photo = cv2.resize(read_image(DEMO), (160, 160), interpolation=cv2.INTER_AREA)
    engine = Engine(device=device, threads=1)
    face = engine.fit(photo)
    affects = [Affect.expression("surprise"), Affect.neutral(), Affect.expression("happy", 0.7)]
    np.asarray(engine.render_batch(face, affects))
    for _ in engine.stream(face, affects):
        pass
    engine.mask(face, affects[0])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="emulated tries the paths without a GPU")
    exercise(open_device(parser.parse_args().device))


if __name__ == "__main__":
    main()
