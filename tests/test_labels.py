"""The labels' files: what is written is what was meant, whole, and as the schema says."""

# ruff: noqa: PT012 (context managers under test need a block inside pytest.raises)
from __future__ import annotations

import errno
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastface.affect import Affect
from fastface.affect_tables import SHAPES
from fastface.atomic import whole_file, write_whole
from fastface.errors import BadArgument, WriteFailed
from fastface.labels import SCHEMA_FILE, Labels, LabelTable, Pose, read_labels, read_table, write_labels


def some_labels(affect: Affect, seed: int = 0) -> Labels:
    found = affect.labels
    points = np.random.default_rng(seed).uniform(0, 256, (546, 2)).astype(np.float32)
    return Labels(
        expression=found.expression,
        intensity=found.intensity,
        aus=found.aus,
        valence=found.valence,
        arousal=found.arousal,
        coefficients=dict(zip(SHAPES, affect.coefficients(SHAPES).tolist(), strict=True)),
        landmarks68_px=points[:68],
        landmarks478_px=points[68:],
        pose=Pose(1.5, -2.25, 0.1, (1.0, 2.0, 500.0), 900.0),
        width_px=256,
        height_px=320,
        photo_sha256="a" * 64,
        model_sha256="b" * 64,
        engine_version="0.1.0",
    )


def conforms(value: Any, schema: dict[str, Any], where: str = "labels") -> None:
    """The part of JSON Schema that our schema uses; anything else in it is an error of the test."""
    kinds: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "number": (int, float),
        "integer": int,
        "boolean": bool,
    }
    for key, rule in schema.items():
        if key == "type":
            assert isinstance(value, kinds[rule]), where
        elif key == "const":
            assert value == rule, where
        elif key == "enum":
            assert value in rule, where
        elif key == "required":
            assert set(rule) <= set(value), where
        elif key == "properties":
            for name in set(rule) & set(value):
                conforms(value[name], rule[name], f"{where}.{name}")
        elif key == "additionalProperties":
            for name, item in value.items():
                conforms(item, rule, f"{where}.{name}")
        elif key == "propertyNames":
            assert all(re.search(rule["pattern"], name) for name in value), where
        elif key == "pattern":
            assert re.search(rule, value), where
        elif key == "items":
            for item in value:
                conforms(item, rule, f"{where}[]")
        elif key in ("minItems", "maxItems"):
            assert (len(value) >= rule) if key == "minItems" else (len(value) <= rule), where
        elif key in ("minimum", "maximum", "exclusiveMinimum"):
            assert {"minimum": value >= rule, "maximum": value <= rule, "exclusiveMinimum": value > rule}[
                key
            ], where
        else:
            assert key in ("$schema", "title", "description"), f"the schema uses {key}, the test does not"


@pytest.mark.parametrize(
    "affect",
    [Affect.neutral(), Affect.expression("contempt", 0.4), Affect.va(-0.9, -0.3), Affect.aus({"AU12L": 0.5})],
)
def test_a_sidecar_is_what_the_schema_says_and_reads_back(tmp_path: Path, affect: Affect) -> None:
    labels = replace(some_labels(affect), extra={"image": "x.png", "affect": affect.slug, "provenance": True})
    write_labels(tmp_path / "x.json", labels)
    record = read_labels(tmp_path / "x.json")
    schema = json.loads(SCHEMA_FILE.read_text())
    conforms(record, schema)
    assert set(record) <= set(schema["properties"])
    assert record["expression"] == affect.labels.expression
    assert record["image"] == "x.png"
    assert np.abs(np.array(record["landmarks478_px"]) - labels.landmarks478_px).max() <= 0.0051
    for name, value in zip(SHAPES, affect.coefficients(SHAPES), strict=True):
        assert record["coefficients"][name] == pytest.approx(value, abs=6e-5)
    assert os.listdir(tmp_path) == ["x.json"]


def test_labels_that_are_not_finite_or_misshapen_are_refused(tmp_path: Path) -> None:
    good = some_labels(Affect.neutral())
    for bad in (
        replace(good, valence=float("nan")),
        replace(good, coefficients={"jawOpen": float("inf")}),
        replace(good, landmarks68_px=good.landmarks478_px),
        replace(good, landmarks478_px=good.landmarks478_px * np.float32(np.nan)),
    ):
        with pytest.raises(BadArgument):
            write_labels(tmp_path / "x.json", bad)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": "other"}', '{"format": "fastface-labels", "version": 2}']
)
def test_other_files_are_no_labels(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(BadArgument, match=r"x\.json"):
        read_labels(tmp_path / "x.json")


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_table_holds_every_row_in_order(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    file = tmp_path / f"out{suffix}"
    affects = [Affect.expression("happy", i / 600) for i in range(600)]
    with LabelTable(file) as table:
        for index, affect in enumerate(affects):
            table.append(replace(some_labels(affect, index), extra={"frame": index, "time_s": index / 30}))
        assert not file.exists()
        assert table.rows == 600
    rows = list(read_table(file))
    assert [row["frame"] for row in rows] == list(range(600))
    for index in (0, 300, 599):
        labels = some_labels(affects[index], index)
        assert np.abs(np.array(rows[index]["landmarks68_px"]) - labels.landmarks68_px).max() < 0.0051
        assert rows[index]["coefficients"]["mouthSmileLeft"] == pytest.approx(
            labels.coefficients["mouthSmileLeft"], abs=6e-5
        )
        assert rows[index]["aus"] == pytest.approx(dict(labels.aus), abs=6e-5)
    assert os.listdir(tmp_path) == [file.name]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("keep", [False, True])
def test_an_interrupted_table_is_absent_or_whole(tmp_path: Path, suffix: str, keep: bool) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    file = tmp_path / f"manifest{suffix}"
    with pytest.raises(KeyboardInterrupt), LabelTable(file, keep_partial=keep) as table:
        for index in range(5):
            table.append(some_labels(Affect.neutral(), index))
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ([file.name] if keep else [])
    if keep:
        assert len(list(read_table(file))) == 5


def test_an_empty_table_reads_back_empty(tmp_path: Path) -> None:
    with LabelTable(tmp_path / "x.jsonl"):
        pass
    assert list(read_table(tmp_path / "x.jsonl")) == []


# --- whole files ---


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("stage", ["open", "write_bytes", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    (tmp_path / "x").write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(Path if stage == "write_bytes" else os, stage, full)
        with pytest.raises(WriteFailed, match="No space left"):
            write_whole(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_an_interruption_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "x") as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert (tmp_path / "x").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_only_regular_files_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe", "no/such/x", ""):
        with pytest.raises(WriteFailed):
            write_whole(os.path.join(tmp_path, name), b"x")
    with pytest.raises(WriteFailed, match="not a regular file"):
        write_whole("/dev/null", b"x")
    assert os.stat("/dev/null").st_mode & 0o170000 == 0o020000


def test_a_link_is_followed_and_the_usual_permissions_are_given(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    old = os.umask(0o027)
    try:
        write_whole(tmp_path / "fresh", b"x")
    finally:
        os.umask(old)
    assert os.stat(tmp_path / "fresh").st_mode & 0o777 == 0o640
