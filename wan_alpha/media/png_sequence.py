"""Straight RGBA frames as PNG files: numbered in a folder, or in one zip archive."""

import contextlib
import os
import zipfile
from pathlib import Path

import numpy as np

from wan_alpha.errors import DataError
from wan_alpha.media.clip_writer import FrameWriter, check_frames, require_rgba
from wan_alpha.media.png_codec import COMPRESS_LEVEL, encode_png


class PngWriter(FrameWriter):
    """Frames made into PNGs, several at a time; subclasses say where they go.

    Args:
        path: where; fps: kept for the record, PNGs have none.
        compress_level: zlib level of the PNGs, 0..9; 1 is by far the fastest, 9 the smallest.
        depth: bits of a channel, 8 or 16.
        texts: keyword -> text, stored in every PNG.
    """

    def __init__(self, path, fps: float = 16.0, compress_level: int = COMPRESS_LEVEL, depth: int = 8, texts=None):
        super().__init__(path, fps)
        self.compress_level, self.depth, self.texts = compress_level, depth, texts
        self._num_stored = 0

    def _encode(self, frame):
        return encode_png(frame, self.texts, self.compress_level)

    def _store(self, encoded):
        self._put(f"{self._num_stored:05d}.png", encoded)
        self._num_stored += 1

    def _put(self, name: str, encoded: bytes) -> None:
        raise NotImplementedError


class PngSequenceWriter(PngWriter):
    """Straight RGBA frames 00000.png, 00001.png, ... in a folder, which is created if missing.

    They are written beside it and moved in at the end; numbered frames of an earlier, longer clip are removed then.
    """

    def __init__(self, path, fps: float = 16.0, compress_level: int = COMPRESS_LEVEL, depth: int = 8, texts=None):
        super().__init__(path, fps, compress_level, depth, texts)
        self._partial = self.path.with_name(f".{self.path.name}.partial")

    def abort(self) -> None:
        self._stop()
        if self._partial.is_dir():
            for frame in self._partial.iterdir():
                frame.unlink()
            self._partial.rmdir()

    def _begin(self, height, width):
        self.abort()  # what a killed run left there is not part of this clip
        self._partial.mkdir(parents=True, exist_ok=True)

    def _put(self, name, encoded):
        (self._partial / name).write_bytes(encoded)

    def _finish(self):
        while self._pending:
            self._store(self._pending.popleft().result())
        self._stop()
        self.path.mkdir(parents=True, exist_ok=True)
        for stale in self.path.glob("[0-9][0-9][0-9][0-9][0-9].png"):
            stale.unlink()
        for frame in sorted(self._partial.iterdir()):
            os.replace(frame, self.path / frame.name)
        self._partial.rmdir()


class PngZipWriter(PngWriter):
    """The same PNGs in one zip archive, stored as they are: they are compressed already."""

    suffix = ".zip"

    def __init__(self, path, fps: float = 16.0, compress_level: int = COMPRESS_LEVEL, depth: int = 8, texts=None):
        super().__init__(path, fps, compress_level, depth, texts)
        self._archive = None

    def abort(self) -> None:
        if self._archive is not None:
            with contextlib.suppress(OSError):
                self._archive.close()  # it would write its table of contents later, into a closed file
            self._archive = None
        super().abort()

    def _begin(self, height, width):
        self._open()
        self._archive = zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED)

    def _put(self, name, encoded):
        self._archive.writestr(zipfile.ZipInfo(name), encoded)  # ZipInfo: no date, so equal clips are equal files

    def _end(self):
        self._archive.close()
        self._archive = None


class StillWriter(PngWriter):
    """One frame as a PNG file; a second one is refused."""

    suffix = ".png"

    def _put(self, name, encoded):
        if self._num_stored:
            raise DataError(f"{self.path}: a still is one frame; choose another format for a clip")
        self._file.write(encoded)


def write_png(path, frame: np.ndarray, texts: dict[str, str] | None = None) -> None:
    """Write one straight RGBA still, (H, W, 4) uint8 or uint16; the file appears whole or not at all.

    Raises:
        DataError: wrong shape or type, or the disk refused.
    """
    path = Path(path)
    check_frames(path, frame[None])
    require_rgba(path, frame[None])
    partial = path.with_name(f".{path.stem}.partial.png")
    try:
        partial.write_bytes(encode_png(frame, texts))
        os.replace(partial, path)
    except OSError as error:
        raise DataError(f"{path}: writing failed ({error})") from error
    finally:
        partial.unlink(missing_ok=True)
