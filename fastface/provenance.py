"""Marking what this package makes as synthetic, in a way that other software reads.

Every image and video carries an XMP packet (ISO 16684-1) with IPTC's ``DigitalSourceType`` =
``compositeWithTrainedAlgorithmicMedia`` and, in a namespace of our own, how it was made. XMP can be stripped
by anyone: it informs, it does not prove.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from fastface.errors import BadArgument, BadImage

#: IPTC NewsCodes, scheme digitalsourcetype: a photograph with parts made by a trained model.
DIGITAL_SOURCE_TYPE: Final = (
    "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
)
#: The same scheme: an image that a model made as a whole.
GENERATED_SOURCE_TYPE: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

_RDF: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_IPTC: Final = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_XMP: Final = "http://ns.adobe.com/xap/1.0/"
_OURS: Final = "urn:fastface:provenance:1#"
#: The box that holds XMP in MP4: *XMP Specification Part 3*, 2020, section 1.2.7.
_MP4_UUID: Final = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
#: Matroska has no place for XMP, but tags of any name.
MATROSKA_TAG: Final = "XMP"
_MAX_PACKET_BYTES: Final = 1 << 20
_MAX_BOXES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a file says of itself: IPTC source type (a URI or ""), the program, and how it was made."""

    digital_source_type: str
    software: str
    parameters: dict[str, Any]

    @property
    def is_synthetic(self) -> bool:
        """Whether the file carries this package's marking."""
        return self.digital_source_type in (DIGITAL_SOURCE_TYPE, GENERATED_SOURCE_TYPE)


def require_marking(marked: bool, *, dataset: bool) -> None:
    """The rule: an image may go unmarked only inside a data set, whose manifest then says so. ``BadArgument``
    else."""
    if not marked and not dataset:
        raise BadArgument(
            "--no-provenance is for data sets (a folder in, a folder out), where the manifest records it; "
            "a single image or video is always marked as synthetic"
        )


def xmp_packet(
    parameters: Mapping[str, Any], software: str = "fastface", source_type: str = DIGITAL_SOURCE_TYPE
) -> bytes:
    """The packet for one output: UTF-8 XML. ``parameters`` is plain JSON data; equal in, equal out."""
    text = json.dumps(dict(parameters), ensure_ascii=False, allow_nan=False, sort_keys=True)
    packet = (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        f'<rdf:RDF xmlns:rdf="{_RDF}">'
        f'<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="{_IPTC}" xmlns:xmp="{_XMP}"'
        f' xmlns:fastface="{_OURS}">'
        f"<Iptc4xmpExt:DigitalSourceType>{source_type}</Iptc4xmpExt:DigitalSourceType>"
        f"<xmp:CreatorTool>{escape(software)}</xmp:CreatorTool>"
        f"<fastface:parameters>{escape(text)}</fastface:parameters>"
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
        '<?xpacket end="r"?>'
    )
    return packet.encode()


def read_provenance(path: str | Path) -> Provenance | None:
    """What a PNG, JPEG, WebP, MP4 or Matroska file says of itself; None when it says nothing.

    Raises ``BadImage`` when the file cannot be read or its packet is damaged.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(12)
            if head[4:8] == b"ftyp":
                packet = _mp4_packet(file, path)
            elif head[:4] == b"\x1aE\xdf\xa3":
                packet = _matroska_packet(path)
            else:
                packet = _image_packet(path)
    except OSError as error:
        raise BadImage(f"{path}: cannot be read ({error.strerror or error})") from None
    return None if packet is None else _parsed(packet, path)


def append_to_mp4(path: str | Path, packet: bytes) -> None:
    """Append the packet as a top-level box; offsets of what is already there do not change."""
    with Path(path).open("ab") as file:
        file.write(struct.pack(">I4s", 24 + len(packet), b"uuid") + _MP4_UUID + packet)


def _mp4_packet(file: IO[bytes], path: Path) -> bytes | None:
    end = file.seek(0, 2)
    at = 0
    for _ in range(_MAX_BOXES):
        if at + 8 > end:
            return None
        file.seek(at)
        size, kind = struct.unpack(">I4s", file.read(8))
        header = 8
        if size == 1:
            long_size = file.read(8)
            size, header = (struct.unpack(">Q", long_size)[0] if len(long_size) == 8 else 0), 16
        elif size == 0:
            size = end - at
        if size < header or at + size > end:
            raise BadImage(f"{path}: damaged MP4, a box at byte {at} has length {size}")
        if kind == b"uuid" and file.read(16) == _MP4_UUID:
            return file.read(min(size - header - 16, _MAX_PACKET_BYTES + 1))
        at += size
    raise BadImage(f"{path}: damaged MP4, more than {_MAX_BOXES:,} boxes")


def _matroska_packet(path: Path) -> bytes | None:
    import av

    try:
        with av.open(str(path)) as container:
            text = {key.upper(): value for key, value in container.metadata.items()}.get(MATROSKA_TAG)
    except av.FFmpegError as error:
        raise BadImage(f"{path}: cannot be read ({error.strerror})") from None
    return None if text is None else text.encode()


def _image_packet(path: Path) -> bytes | None:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    except UnidentifiedImageError:
        raise BadImage(f"{path}: not a PNG, JPEG, WebP, MP4 or Matroska file") from None
    except (ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise BadImage(f"{path}: cannot be read ({error})") from None
    return packet.encode() if isinstance(packet, str) else packet


def _parsed(packet: bytes, path: Path) -> Provenance:
    if len(packet) > _MAX_PACKET_BYTES:
        raise BadImage(f"{path}: an XMP packet of more than {_MAX_PACKET_BYTES >> 20} MiB")
    # XMP needs no document type; entities are how small XML becomes large.
    if b"<!" in packet:
        raise BadImage(f"{path}: an XMP packet with a document type is not read")
    try:
        root = ElementTree.fromstring(packet.rstrip(b"\0"))
    except (ElementTree.ParseError, ValueError) as error:
        raise BadImage(f"{path}: damaged XMP packet ({error})") from None
    try:
        parameters = json.loads(_property(root, f"{{{_OURS}}}parameters") or "{}")
    except (ValueError, RecursionError):
        raise BadImage(f"{path}: damaged generation parameters in the XMP packet") from None
    return Provenance(
        digital_source_type=_property(root, f"{{{_IPTC}}}DigitalSourceType"),
        software=_property(root, f"{{{_XMP}}}CreatorTool"),
        parameters=parameters if isinstance(parameters, dict) else {},
    )


def _property(root: ElementTree.Element, name: str) -> str:
    """A simple property: XMP writes it as an element or, equally, as an attribute of its Description."""
    for description in root.iter(f"{{{_RDF}}}Description"):
        element = description.find(name)
        if element is not None:
            return (element.text or element.get(f"{{{_RDF}}}resource") or "").strip()
        if name in description.attrib:
            return description.attrib[name]
    return ""
