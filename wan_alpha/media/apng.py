"""Animated PNG: straight RGBA, lossless, 8 or 16 bits, played by every browser."""

import struct
from fractions import Fraction

import numpy as np

from wan_alpha.errors import ConfigError
from wan_alpha.media.changes import changed_box
from wan_alpha.media.clip_writer import FrameWriter
from wan_alpha.media.png_codec import COMPRESS_LEVEL, SIGNATURE, chunk, compress_image, header_chunk, text_chunks

_KEEP, _REPLACE = 0, 0  # fcTL: the canvas stays after a frame; a frame's pixels replace those below, alpha included


class ApngWriter(FrameWriter):
    """Straight RGBA as an animated PNG; of each frame, the box that changed is stored.

    Args:
        path: *.apng or *.png; fps: frames per second, stored as a fraction.
        depth: bits of a channel, 8 or 16; few viewers show more than 8.
        loops: times it plays, 0 for ever.
        compress_level: zlib level, 0..9.
        texts: keyword -> text, stored in it.
    """

    suffix = ".apng"

    def __init__(
        self, path, fps: float = 16.0, depth: int = 8, loops: int = 0, compress_level: int = COMPRESS_LEVEL, texts=None
    ):
        super().__init__(path, fps)
        self.depth, self.loops, self.compress_level, self.texts = depth, loops, compress_level, texts
        delay = (1 / Fraction(fps).limit_denominator(1000)).limit_denominator(65535)
        if not 0 < delay.numerator <= 65535:
            raise ConfigError(f"{path}: fps = {fps} cannot be stored in an animated PNG")
        self._delay = delay
        self._previous = None
        self._num_chunks = self._num_stored = 0

    def _begin(self, height, width):
        self._open()
        self._previous, self._num_chunks, self._num_stored = None, 0, 0
        self._file.write(SIGNATURE + header_chunk(width, height, 4, self.depth))
        self._count_at = self._file.tell()
        self._file.write(self._animation_chunk() + text_chunks(self.texts))

    def _animation_chunk(self) -> bytes:
        return chunk(b"acTL", struct.pack(">II", self._num_stored, self.loops))

    def _prepare(self, frame):
        top, bottom, left, right = changed_box(self._previous, frame)
        self._previous = frame.copy()
        return top, left, self._previous[top:bottom, left:right]

    def _encode(self, top, left, box):
        return top, left, box.shape[:2], compress_image(np.ascontiguousarray(box), self.compress_level)

    def _store(self, encoded):
        top, left, (height, width), data = encoded
        place = struct.pack(">IIIII", self._next_number(), width, height, left, top)
        timing = struct.pack(">HHBB", self._delay.numerator, self._delay.denominator, _KEEP, _REPLACE)
        self._file.write(chunk(b"fcTL", place + timing))
        if self._num_stored == 0:
            self._file.write(chunk(b"IDAT", data))  # what a viewer without animation shows
        else:
            self._file.write(chunk(b"fdAT", struct.pack(">I", self._next_number()) + data))
        self._num_stored += 1

    def _next_number(self) -> int:
        self._num_chunks += 1
        return self._num_chunks - 1

    def _end(self):
        self._file.write(chunk(b"IEND", b""))
        self._file.seek(self._count_at)  # how many frames there are is known only now
        self._file.write(self._animation_chunk())
