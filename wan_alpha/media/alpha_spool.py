"""The alpha of a clip, put aside while it is written, so that what was written can be compared with it."""

import struct
import tempfile
import zlib
from collections.abc import Iterator

import numpy as np


class AlphaSpool:
    """Alpha planes in a temporary file, compressed: the memory of one frame, however long the clip."""

    def __init__(self):
        self._file = tempfile.TemporaryFile()
        self._shape = self._dtype = None
        self.num_frames = 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()

    def write(self, frames: np.ndarray) -> None:
        """Append the alpha of (T, H, W, 4) frames, uint8 or uint16, all of one size and type."""
        self._shape, self._dtype = frames.shape[1:3], frames.dtype
        self._file.seek(0, 2)
        for frame in frames:
            packed = zlib.compress(np.ascontiguousarray(frame[..., 3]), 1)
            self._file.write(struct.pack("<I", len(packed)) + packed)
            self.num_frames += 1

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the planes, (H, W), in order, from the first."""
        place = 0
        for _ in range(self.num_frames):
            self._file.seek(place)  # others may iterate too
            (length,) = struct.unpack("<I", self._file.read(4))
            plane = zlib.decompress(self._file.read(length))
            place += 4 + length
            yield np.frombuffer(plane, self._dtype).reshape(self._shape)
