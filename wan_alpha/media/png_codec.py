"""PNG files made from frames, fast: one row filter, one zlib stream, so that several threads can each make one.

The frames of a clip are written once and read often by programs of all kinds, so they are plain PNGs. The filter
"up" (each row minus the row above) is a single numpy subtraction, and run-length matching (zlib's RLE strategy) finds
nearly all that is left to find after it: files are a few percent larger than those of a full search, at a sixth of its
time. Everything heavy here runs without the interpreter's lock.

Chunks, as the specification calls them: https://www.w3.org/TR/png-3/
"""

import struct
import zlib

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COMPRESS_LEVEL = 1
_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> grey, grey and alpha, RGB, RGBA
_UP = 2


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk: length, four-letter kind, data, checksum of kind and data."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def header_chunk(width: int, height: int, channels: int = 4, depth: int = 8) -> bytes:
    """IHDR of an image without interlacing. depth: bits per channel, 8 or 16."""
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, _COLOR_TYPES[channels], 0, 0, 0))


def text_chunks(texts: dict[str, str] | None) -> bytes:
    """An iTXt chunk (UTF-8) for each entry; keys are Latin letters, at most 79 of them, and values any text."""
    made = []
    for key, value in (texts or {}).items():
        # NUL ends a field of this chunk, so none may stand within one.
        content = value.replace("\0", " ").encode("utf-8", errors="replace")
        made.append(chunk(b"iTXt", key.encode("latin-1")[:79] + b"\0\0\0\0\0" + content))
    return b"".join(made)


def filter_rows(image: np.ndarray, above: np.ndarray | None = None) -> np.ndarray:
    """Rows as PNG stores them: the filter's number, then each byte minus the one above it.

    Args:
        image: (H, W, C) uint8 or uint16.
        above: the row of pixels before the first one, (W, C); None for the top of the image.

    Returns:
        (H, 1 + bytes per row) uint8, 16-bit values in the most significant byte first.
    """
    raw = image if image.dtype == np.uint8 else image.astype(">u2").view(np.uint8)
    rows = np.ascontiguousarray(raw).reshape(len(image), -1)
    filtered = np.empty((len(rows), rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = _UP
    if above is None:
        filtered[0, 1:] = rows[0]
    else:
        previous = above if above.dtype == np.uint8 else above.astype(">u2").view(np.uint8)
        np.subtract(rows[0], np.ascontiguousarray(previous).reshape(-1), out=filtered[0, 1:])
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    return filtered


def new_compressor(level: int = COMPRESS_LEVEL):
    """zlib at `level`, 0..9, matching runs only; from level 4 on with the full search, for small files."""
    return zlib.compressobj(level, strategy=zlib.Z_RLE if level < 4 else zlib.Z_FILTERED)


def compress_image(image: np.ndarray, level: int = COMPRESS_LEVEL) -> bytes:
    """The zlib stream of one image, (H, W, C) uint8 or uint16: what IDAT and fdAT chunks hold."""
    compressor = new_compressor(level)
    return compressor.compress(filter_rows(image)) + compressor.flush()


def encode_png(image: np.ndarray, texts: dict[str, str] | None = None, level: int = COMPRESS_LEVEL) -> bytes:
    """One image as the bytes of a PNG file.

    Args:
        image: (H, W, C) uint8 or uint16 with C = 1 (grey), 3 (RGB) or 4 (straight RGBA), the type's full range.
        texts: stored in it, keyword -> text.
        level: zlib level, 0..9.
    """
    height, width, channels = image.shape
    depth = 8 * image.dtype.itemsize
    parts = [SIGNATURE, header_chunk(width, height, channels, depth), text_chunks(texts)]
    return b"".join([*parts, chunk(b"IDAT", compress_image(image, level)), chunk(b"IEND", b"")])


def decode_png(file: bytes) -> np.ndarray:
    """The image in a PNG that `encode_png` made, (H, W, C) uint8 or uint16: to check what was written.

    Raises:
        ValueError: a checksum is wrong, or the PNG is not one of those.
    """
    place, stream, shape = len(SIGNATURE), b"", None
    while place < len(file):
        length, kind = struct.unpack(">I4s", file[place : place + 8])
        data = file[place + 8 : place + 8 + length]
        if chunk(kind, data) != file[place : place + 12 + length]:
            raise ValueError(f"the checksum of the chunk {kind!r} is wrong")
        if kind == b"IHDR":
            width, height, depth, color_type = struct.unpack(">IIBB", data[:10])
            channels = next(number for number, known in _COLOR_TYPES.items() if known == color_type)
            shape = (height, width, channels)
        elif kind == b"IDAT":
            stream += data
        place += 12 + length
    rows = np.frombuffer(zlib.decompress(stream), np.uint8).reshape(shape[0], -1)
    if (rows[:, 0] != _UP).any():
        raise ValueError("rows with another filter than 'up'")
    raw = np.add.accumulate(rows[:, 1:], axis=0, dtype=np.uint8)
    return (raw if depth == 8 else raw.view(">u2").astype(np.uint16)).reshape(shape)
