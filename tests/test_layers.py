"""The house's rules that a compiler would not notice."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fastface import _core

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("room", ["core", "ops"])
def test_the_compiled_core_knows_no_framework(room: str) -> None:
    suffixes = (".h", ".cpp", ".cu", ".cuh")
    sources = [path for path in (ROOT / "csrc" / room).iterdir() if path.suffix in suffixes]
    assert sources
    for path in sources:
        for included in re.findall(r'#include\s+[<"]([^>"]+)[>"]', path.read_text()):
            assert not re.match(r"(pybind11|torch|ATen|c10|onnx|onnxruntime|NvInfer|Python\.h)", included), (
                path
            )


def test_the_definition_imports_numpy_alone() -> None:
    tree = ast.parse((ROOT / "fastface" / "reference.py").read_text())
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert imported - {"__future__", "typing"} == {"numpy"}


def test_every_op_has_a_definition_with_the_same_arguments() -> None:
    import inspect

    from fastface import ops, reference

    registry = (ROOT / "csrc" / "registry.h").read_text()
    ops_only = registry.split("#define FF_FOR_EACH_FRAME_STEP")[0]
    named = re.findall(r"^  X\(\w+, (\w+)\)", ops_only, re.MULTILINE)
    assert {"deform", "rasterize", "shade", "blend"} <= set(named)
    for name in named:
        wanted = list(inspect.signature(getattr(reference, name)).parameters)
        got = list(inspect.signature(getattr(ops, name)).parameters)
        assert [p for p in got if p not in ("out", "threads", "workspace", "stream")] == wanted


def test_instruction_set_can_be_chosen_from_outside() -> None:
    def started(wanted: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-c", "from fastface import _core; print(_core.isa())"]
        package = str(Path(_core.__file__).parents[1])  # the one under test, installed or not
        environment = {**os.environ, "FASTFACE_ISA": wanted, "PYTHONPATH": package}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert started("baseline").stdout.strip() == "baseline"
    refused = started("sse9")
    assert refused.returncode != 0
    assert "one of baseline" in refused.stderr


def test_every_file_of_data_has_its_source_and_licence_in_the_notice() -> None:
    notice = (ROOT / "NOTICE").read_text()
    assets = [path for path in (ROOT / "fastface" / "assets").rglob("*") if path.is_file()]
    assert len(assets) > 5
    ours = {"labels.schema.json"}
    assert {path.name for path in assets if path.name not in notice} == ours
