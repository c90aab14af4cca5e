"""Prompt and settings inside picture files: text chunks of a PNG, an XMP packet of a WebP."""

import re
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from PIL import Image, UnidentifiedImageError

from wan_alpha.errors import DataError
from wan_alpha.media import stills

SOFTWARE = "wan_alpha"
_XMP = {
    "x": "adobe:ns:meta/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "wan": "urn:wan-alpha:settings:1",
}
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_UNREADABLE = (OSError, SyntaxError, ValueError, UnidentifiedImageError, ElementTree.ParseError)


def xmp_packet(texts: dict[str, str]) -> bytes:
    """keyword -> text as an XMP packet; keywords must be names of XML. Characters that XML lacks become spaces."""
    spaces = " ".join(f'xmlns:{prefix}="{address}"' for prefix, address in _XMP.items())
    entries = "".join(f"<wan:{key}>{escape(_NOT_IN_XML.sub(' ', text))}</wan:{key}>" for key, text in texts.items())
    body = f'<rdf:RDF><rdf:Description rdf:about="">{entries}</rdf:Description></rdf:RDF>'
    packet = (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        f'<x:xmpmeta {spaces}>{body}</x:xmpmeta><?xpacket end="r"?>'
    )
    return packet.encode("utf-8")


def read_texts(path) -> dict[str, str]:
    """keyword -> text of a PNG, an animated PNG, a WebP, or the first frame of a folder; empty where there is none.

    Raises:
        DataError: the file cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        return read_texts(stills.list_frames(path)[0])
    try:
        with Image.open(path) as image:
            if image.format == "PNG":
                return {key: str(text) for key, text in image.text.items()}
            return _from_xmp(image.info.get("xmp", b""))
    except _UNREADABLE as error:
        raise DataError(f"{path}: its prompt and settings cannot be read ({error})") from error


def _from_xmp(packet: bytes) -> dict[str, str]:
    # A document type could define entities that grow without bound; XMP has none.
    if not packet or b"<!DOCTYPE" in packet:
        return {}
    prefix = "{" + _XMP["wan"] + "}"
    nodes = ElementTree.fromstring(packet.decode("utf-8", errors="replace").strip("\ufeff\0 \n")).iter()
    return {node.tag.removeprefix(prefix): node.text or "" for node in nodes if str(node.tag).startswith(prefix)}
