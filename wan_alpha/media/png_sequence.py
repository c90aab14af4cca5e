"""Straight RGBA frames as numbered PNG files."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from wan_alpha.errors import DataError
from wan_alpha.media.stream_writer import check_frames, require_rgba


class PngSequenceWriter:
    """Straight RGBA frames 00000.png, 00001.png, ... in `folder`.

    They are written beside it and moved in at the end; numbered frames of an earlier, longer clip are removed then.

    Args:
        folder: created if missing.
        compress_level: zlib level of the PNGs, 0..9.
    """

    def __init__(self, folder, compress_level: int = 4):
        self.folder = Path(folder)
        self.compress_level = compress_level
        self.num_frames = 0
        self._partial = self.folder.with_name(f".{self.folder.name}.partial")
        self._size = None

    def __enter__(self):
        return self

    def __exit__(self, error_type, error, traceback):
        if error_type is None:
            self.close()
        else:
            self.abort()

    def write(self, frames: np.ndarray) -> None:
        """Append frames, (T, H, W, 4) uint8 straight RGBA.

        Raises:
            DataError: wrong shape, type or size, or the disk refused; the partial folder is gone then.
        """
        try:
            check_frames(self.folder, frames, self._size)
            if self._size is None:
                self.abort()  # what a killed run left there is not part of this clip
            self._size = frames.shape[1:3]
            self._partial.mkdir(parents=True, exist_ok=True)
            for frame in require_rgba(self.folder, frames):
                target = self._partial / f"{self.num_frames:05d}.png"
                Image.fromarray(frame).save(target, compress_level=self.compress_level)
                self.num_frames += 1
        except OSError as error:
            self.abort()
            raise DataError(f"{self.folder}: writing frame {self.num_frames} failed ({error})") from error
        except BaseException:
            self.abort()
            raise

    def close(self) -> None:
        """Move the frames into the folder.

        Raises:
            DataError: no frame was written, or the folder's name is taken by a file.
        """
        if self.num_frames == 0:
            raise DataError(f"{self.folder}: no frames were written")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for stale in self.folder.glob("[0-9][0-9][0-9][0-9][0-9].png"):
                stale.unlink()
            for frame in sorted(self._partial.iterdir()):
                os.replace(frame, self.folder / frame.name)
            self._partial.rmdir()
        except OSError as error:
            self.abort()
            raise DataError(f"{self.folder}: the frames could not be moved there ({error})") from error

    def abort(self) -> None:
        """Remove what was written so far."""
        if self._partial.is_dir():
            for frame in self._partial.iterdir():
                frame.unlink()
            self._partial.rmdir()


def write_png(path, frame: np.ndarray) -> None:
    """Write one straight RGBA still, (H, W, 4) uint8; the file appears whole or not at all.

    Raises:
        DataError: wrong shape or type, or the disk refused.
    """
    path = Path(path)
    check_frames(path, frame[None])
    partial = path.with_name(f".{path.stem}.partial.png")
    try:
        Image.fromarray(require_rgba(path, frame[None])[0]).save(partial)
        os.replace(partial, path)
    except OSError as error:
        raise DataError(f"{path}: writing failed ({error})") from error
    finally:
        partial.unlink(missing_ok=True)
