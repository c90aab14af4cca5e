"""What every writer of clips has in common: frames in, chunk by chunk; a whole output under its name, or none."""

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from wan_alpha.errors import ConfigError, DataError
from wan_alpha.media.pixel_depth import narrow, widen
from wan_alpha.media.premultiplied import premultiply

_MOST_THREADS = 8  # each holds a frame or two


class ClipWriter:
    """A context manager with `write(frames)`; subclasses say how frames are kept and what ends the output.

    Args:
        path: file with the class's suffix, or a folder where that is "".
        fps: frames per second.

    Attributes:
        depth: bits of a channel as this writer stores it, 8 or 16; frames of the other depth are converted.
        premultiplied: colour is multiplied by alpha on its way in. Set it before the first frame.
        num_frames: frames written so far.

    Raises:
        ConfigError: another suffix, a name that no file can have, or an fps that is not above 0.
    """

    suffix = ""
    depth = 8
    premultiplied = False

    def __init__(self, path, fps: float = 16.0):
        self.path = Path(path)
        if "\0" in self.path.name:
            raise ConfigError(f"{str(path)!r}: the name of a file cannot hold NUL")
        if self.suffix and self.path.suffix.lower() != self.suffix:
            raise ConfigError(f"{path}: {type(self).__name__} writes {self.suffix} files; name the file so")
        if not fps > 0:
            raise ConfigError(f"{path}: fps = {fps} must be above 0 (frames per second)")
        self.fps = fps
        self.num_frames = 0
        self._partial = self.path.with_name(f".{self.path.stem}.partial{self.suffix}")
        self._size = None

    def __enter__(self):
        return self

    def __exit__(self, error_type, error, traceback):
        if error_type is None:
            self.close()
        else:
            self.abort()

    def write(self, frames: np.ndarray) -> None:
        """Append frames, (T, H, W, 4) uint8 or uint16 straight RGBA, all of the first call's size.

        Raises:
            DataError: wrong shape, type or size, or writing failed; what was written is gone then.
        """
        with self._undone_by_errors():
            check_frames(self.path, frames, self._size)
            if self._size is None:
                self._size = frames.shape[1:3]
                self._begin(*self._size)
            frames = to_depth(frames, self.depth)
            self._append(premultiply(require_rgba(self.path, frames)) if self.premultiplied else frames)
        self.num_frames += len(frames)

    def close(self) -> None:
        """Finish the output and give it its name.

        Raises:
            DataError: no frame was written, or writing failed; nothing of it is left then.
        """
        with self._undone_by_errors():
            if self._size is None:
                raise DataError(f"{self.path}: no frames were written")
            self._finish()

    def abort(self) -> None:
        """Stop and remove what was written so far; harmless when nothing was."""
        raise NotImplementedError

    @contextmanager
    def _undone_by_errors(self):
        """What was written goes when anything fails within; the disk's refusals become DataErrors."""
        try:
            yield
        except OSError as error:
            self._give_up()
            raise DataError(f"{self.path}: writing failed ({error})") from error
        except BaseException:
            self._give_up()
            raise

    def _give_up(self) -> None:
        self.abort()
        self._size, self.num_frames = None, 0

    def _begin(self, height: int, width: int) -> None:
        """Called once, before the first frame."""

    def _append(self, frames: np.ndarray) -> None:
        """Take (T, H, W, C) frames of the writer's depth."""
        raise NotImplementedError

    def _finish(self) -> None:
        """Write what is still missing and put the output under its name."""
        raise NotImplementedError


class FrameWriter(ClipWriter):
    """One file, each frame of which is made into bytes on its own: by several threads, and stored in order.

    Subclasses give `_encode`, and where they need it `_prepare`, `_begin` and `_end`. A few frames are in memory at a
    time, however long the clip.
    """

    def __init__(self, path, fps: float = 16.0):
        super().__init__(path, fps)
        self._file = None
        self._pool = None
        self._pending = deque()

    def abort(self) -> None:
        self._stop()
        self._partial.unlink(missing_ok=True)

    def _prepare(self, frame: np.ndarray) -> tuple:
        """What `_encode` gets for a frame; called in order, so that frames can be compared. A copy: callers may reuse
        theirs."""
        return (frame.copy(),)

    def _encode(self, *prepared) -> bytes:
        """Bytes of one frame; runs in a thread."""
        raise NotImplementedError

    def _store(self, encoded: bytes) -> None:
        """Put one frame's bytes into the file; called in order."""
        self._file.write(encoded)

    def _end(self) -> None:
        """Write what follows the last frame."""

    def _open(self) -> None:
        if not self.path.parent.is_dir():
            raise DataError(f"{self.path}: the folder {self.path.parent} does not exist")
        self._file = open(self._partial, "w+b")

    def _append(self, frames):
        if self._pool is None:
            self._workers = min(os.cpu_count() or 1, _MOST_THREADS)
            self._pool = ThreadPoolExecutor(self._workers)
        for frame in require_rgba(self.path, frames):
            self._pending.append(self._pool.submit(self._encode, *self._prepare(frame)))
            # Two more than there are threads keep them all busy.
            while len(self._pending) > self._workers + 2:
                self._store(self._pending.popleft().result())

    def _finish(self):
        while self._pending:
            self._store(self._pending.popleft().result())
        self._end()
        self._stop()
        os.replace(self._partial, self.path)

    def _begin(self, height, width):
        self._open()

    def _stop(self) -> None:
        for job in self._pending:
            job.cancel()
        self._pending.clear()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        if self._file is not None:
            self._file.close()
            self._file = None


def to_depth(frames: np.ndarray, depth: int) -> np.ndarray:
    """uint8 or uint16 frames as 8 or 16 bits, whichever they were."""
    if 8 * frames.dtype.itemsize == depth:
        return frames
    return widen(frames) if depth == 16 else narrow(frames)


def check_frames(path, frames: np.ndarray, size: tuple[int, int] | None = None) -> None:
    """Refuse what is not a run of frames.

    Raises:
        DataError: wrong shape or type, or a size other than `size` (height, width).
    """
    if frames.dtype not in (np.uint8, np.uint16) or frames.ndim != 4 or frames.shape[-1] not in (3, 4):
        raise DataError(f"{path}: frames must be (T, H, W, 4) uint8 or uint16, got {frames.shape} {frames.dtype}")
    if size is not None and frames.shape[1:3] != size:
        raise DataError(f"{path}: frames of {frames.shape[1:3]} (height, width) after frames of {size}")


def require_rgba(path, frames: np.ndarray) -> np.ndarray:
    """`frames` themselves.

    Raises:
        DataError: they are not RGBA.
    """
    if frames.shape[-1] != 4:
        raise DataError(f"{path}: this format carries alpha; frames must be (T, H, W, 4), got {frames.shape}")
    return frames
