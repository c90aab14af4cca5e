"""The machinery under the video writers: one ffmpeg process, fed chunk by chunk, that leaves a whole file or none."""

import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from wan_alpha.errors import ConfigError, DataError
from wan_alpha.media import ffmpeg


class StreamWriter:
    """One ffmpeg process fed through a pipe; subclasses name the encoder and turn RGBA into what it is fed."""

    suffix: str
    feed = "rgb24"

    def __init__(self, path, fps: float = 16.0):
        self.path = Path(path)
        if self.path.suffix.lower() != self.suffix:
            raise ConfigError(f"{path}: {type(self).__name__} writes {self.suffix} files; name the file so")
        if not fps > 0:
            raise ConfigError(f"{path}: fps = {fps} must be above 0 (frames per second)")
        self.fps = fps
        self.num_frames = 0
        self._partial = self.path.with_name(f".{self.path.stem}.partial{self.suffix}")
        self._process = None
        self._log = None
        self._size = None

    def encoder_arguments(self) -> list[str]:
        raise NotImplementedError

    def convert(self, frames: np.ndarray) -> np.ndarray:
        """(T, H, W, 4) straight RGBA -> the frames that are fed, uint8."""
        raise NotImplementedError

    def __enter__(self):
        return self

    def __exit__(self, error_type, error, traceback):
        if error_type is None:
            self.close()
        else:
            self.abort()

    def write(self, frames: np.ndarray) -> None:
        """Append frames, (T, H, W, 4) uint8 straight RGBA, all of the first call's size.

        Raises:
            DataError: wrong shape, type or size, or ffmpeg failed; the partial file is gone then.
        """
        try:
            check_frames(self.path, frames, self._size)
            self._size = frames.shape[1:3]
            data = np.ascontiguousarray(self.convert(frames))
            if self._process is None:
                self._start(data.shape[1], data.shape[2])
            self._feed(data)
        except BaseException:
            self.abort()
            raise
        self.num_frames += len(frames)

    def close(self) -> None:
        """Finish the file and give it its name.

        Raises:
            DataError: ffmpeg failed, or no frame was written.
        """
        if self._process is None:
            raise DataError(f"{self.path}: no frames were written")
        self._process.stdin.close()
        code = self._process.wait()
        if code != 0:
            message = self._failure()
            self.abort()
            raise DataError(message)
        self._log.close()
        self._process = None
        os.replace(self._partial, self.path)

    def abort(self) -> None:
        """Stop and remove what was written so far; harmless when nothing runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._log.close()
            self._process = None
        self._partial.unlink(missing_ok=True)

    def _start(self, height: int, width: int) -> None:
        if not self.path.parent.is_dir():
            raise DataError(f"{self.path}: the folder {self.path.parent} does not exist")
        command = [ffmpeg.executable(), "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", self.feed]
        command += ["-video_size", f"{width}x{height}", "-framerate", f"{self.fps:.6f}", "-i", "pipe:0"]
        command += [*self.encoder_arguments(), ffmpeg.file_argument(self._partial)]
        self._log = tempfile.TemporaryFile()
        # Unbuffered: the last chunk is then with ffmpeg when write() returns, and a failure shows in the same call.
        self._process = subprocess.Popen(
            command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._log
        )

    def _feed(self, data: np.ndarray) -> None:
        view = memoryview(data).cast("B")
        try:
            while view:
                view = view[self._process.stdin.write(view) :]
        except OSError as error:
            self._process.wait()
            raise DataError(self._failure()) from error

    def _failure(self) -> str:
        self._log.seek(0)
        return f"{self.path}: writing failed:\n{ffmpeg.last_lines(self._log.read().decode(errors='replace'))}"


def check_frames(path, frames: np.ndarray, size: tuple[int, int] | None = None) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] not in (3, 4):
        raise DataError(f"{path}: frames must be (T, H, W, 4) uint8, got {frames.shape} {frames.dtype}")
    if size is not None and frames.shape[1:3] != size:
        raise DataError(f"{path}: frames of {frames.shape[1:3]} (height, width) after frames of {size}")


def require_rgba(path, frames: np.ndarray) -> np.ndarray:
    if frames.shape[-1] != 4:
        raise DataError(f"{path}: this format carries alpha; frames must be (T, H, W, 4), got {frames.shape}")
    return frames
