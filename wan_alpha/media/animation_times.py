"""How long each frame of an animation is shown, read from the file's own blocks: nothing is decoded."""

import mmap
import struct

# What browsers show frames for that name no time.
_DEFAULT = 0.1


def frame_durations(path) -> list[float]:
    """Seconds of each frame of a GIF, APNG or WebP animation, in order; [] where the file names no times."""
    # Mapped, not read: only the pages that hold the blocks' heads come into memory.
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:3] == b"GIF":
            durations = _gif(data)
        elif data[:8] == b"\x89PNG\r\n\x1a\n":
            durations = _apng(data)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            durations = _webp(data)
        else:
            durations = []
    return [duration or _DEFAULT for duration in durations] if any(durations) else []


def _gif(data: bytes) -> list[float]:
    def after_table(place: int, flags: int) -> int:
        return place + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)

    def after_blocks(place: int) -> int:
        while place < len(data) and data[place]:
            place += data[place] + 1
        return place + 1

    durations, delay, place = [], 0.0, after_table(13, data[10])
    while place < len(data):
        if data[place : place + 2] == b"\x21\xf9":  # graphic control: its delay is for the next image
            delay = struct.unpack_from("<H", data, place + 4)[0] / 100
            place = after_blocks(place + 2)
        elif data[place] == 0x21:
            place = after_blocks(place + 2)
        elif data[place] == 0x2C:
            durations.append(delay)
            place = after_blocks(after_table(place + 10, data[place + 9]) + 1)
        else:
            break
    return durations


def _apng(data: bytes) -> list[float]:
    durations, place = [], 8
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"fcTL":
            over, under = struct.unpack_from(">HH", data, place + 8 + 20)
            durations.append(over / (under or 100))
        place += 12 + length
    return durations


def _webp(data: bytes) -> list[float]:
    durations, place = [], 12
    while place + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, place)
        if kind == b"ANMF":
            durations.append(int.from_bytes(data[place + 20 : place + 23], "little") / 1000)
        place += 8 + length + length % 2
    return durations
