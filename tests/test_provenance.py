"""The marking of synthetic images: others can read it, and hostile files are read without harm."""

# ruff: noqa: PT017 (what is raised is one of two right outcomes; its text is checked too)
from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from fastface.errors import BadArgument, BadImage, FastfaceError
from fastface.provenance import (
    DIGITAL_SOURCE_TYPE,
    append_to_mp4,
    read_provenance,
    require_marking,
    xmp_packet,
)

PARAMETERS = {"affect": "happy-0.80", "seed": 3, "note": "<&\"'> Zoë"}


def save_with_pillow(path: Path, packet: bytes) -> None:
    """As any other program would embed XMP."""
    image = Image.new("RGB", (8, 8), (200, 100, 50))
    if path.suffix == ".png":
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt("XML:com.adobe.xmp", packet.decode())
        image.save(path, pnginfo=chunks)
    else:
        image.save(path, xmp=packet)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_a_marked_image_is_read_back(tmp_path: Path, suffix: str) -> None:
    save_with_pillow(tmp_path / f"x{suffix}", xmp_packet(PARAMETERS, "fastface 0.1.0"))
    found = read_provenance(tmp_path / f"x{suffix}")
    assert found is not None
    assert found.is_synthetic
    assert found.parameters == PARAMETERS
    assert found.software == "fastface 0.1.0"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_an_unmarked_image_says_nothing(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / f"x{suffix}")
    assert read_provenance(tmp_path / f"x{suffix}") is None


def test_the_packet_is_plain_xmp_and_always_the_same() -> None:
    packet = xmp_packet(PARAMETERS)
    assert packet == xmp_packet(dict(reversed(PARAMETERS.items())))
    assert b"http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia" in packet
    assert packet.startswith(b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>')
    with pytest.raises(ValueError, match="JSON compliant"):
        xmp_packet({"x": float("nan")})


def test_packets_of_other_programs_are_read(tmp_path: Path) -> None:
    """Properties may be attributes, and a URI may be a resource."""
    for body in (
        f'<rdf:Description Iptc4xmpExt:DigitalSourceType="{DIGITAL_SOURCE_TYPE}"/>',
        "<rdf:Description>"
        f'<Iptc4xmpExt:DigitalSourceType rdf:resource="{DIGITAL_SOURCE_TYPE}"/></rdf:Description>',
    ):
        packet = (
            '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
            '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
            f'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">{body}</rdf:RDF></x:xmpmeta>'
        )
        save_with_pillow(tmp_path / "x.jpg", packet.encode())
        found = read_provenance(tmp_path / "x.jpg")
        assert found is not None
        assert found.is_synthetic
        assert found.parameters == {}


def test_only_a_data_set_may_go_unmarked() -> None:
    require_marking(True, dataset=False)
    require_marking(False, dataset=True)
    with pytest.raises(BadArgument, match="always marked"):
        require_marking(False, dataset=False)


BOMB = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><x>&b;</x>'


@pytest.mark.parametrize(
    "packet",
    [b"<x", b"", BOMB, b"\xff\xfe\x00", b"<x/>" + b" " * (1 << 20), xmp_packet({}).replace(b"{}", b"{")],
)
def test_damaged_or_hostile_packets_are_refused(tmp_path: Path, packet: bytes) -> None:
    (tmp_path / "x.mp4").write_bytes(struct.pack(">I4s", 12, b"ftyp") + b"isom")
    append_to_mp4(tmp_path / "x.mp4", packet)
    with pytest.raises(BadImage, match=r"x\.mp4"):
        read_provenance(tmp_path / "x.mp4")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe1\xff\xff",
        b"RIFF\xff\xff\xff\xffWEBP",
        b"\x1aE\xdf\xa3junk",
    ],
)
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(BadImage):
        read_provenance(tmp_path / "x")
    with pytest.raises(BadImage, match="cannot be read"):
        read_provenance(tmp_path / "missing.png")


@settings(deadline=None, max_examples=150)
@given(
    st.binary(max_size=80),
    st.sampled_from([0, 1, 7, 8, 9, 40, 2**32 - 1]),
    st.sampled_from([b"uuid", b"free"]),
)
def test_any_boxes_end(tmp_path_factory: pytest.TempPathFactory, data: bytes, size: int, kind: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "boxes.mp4"
    file.write_bytes(struct.pack(">I4s", 12, b"ftyp") + b"isom" + struct.pack(">I4s", size, kind) + data)
    try:
        read_provenance(file)
    except FastfaceError as error:
        assert "boxes.mp4" in str(error)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=8))
def test_a_bitten_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, at: int, bite: bytes
) -> None:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG", xmp=xmp_packet(PARAMETERS))
    data = bytearray(out.getvalue())
    at %= len(data)
    data[at : at + len(bite)] = bite
    file = tmp_path_factory.getbasetemp() / "bitten.jpg"
    file.write_bytes(data)
    try:
        read_provenance(file)
    except FastfaceError as error:
        assert "bitten.jpg" in str(error)
