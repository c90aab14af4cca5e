"""The machinery under the video writers: one ffmpeg process, fed chunk by chunk, that leaves a whole file or none."""

import os
import subprocess
import tempfile

import numpy as np

from wan_alpha.errors import DataError
from wan_alpha.media import ffmpeg
from wan_alpha.media.clip_writer import ClipWriter


class StreamWriter(ClipWriter):
    """One ffmpeg process fed through a pipe; subclasses name the encoder and turn RGBA into what it is fed."""

    feed = "rgb24"

    def __init__(self, path, fps: float = 16.0):
        super().__init__(path, fps)
        self._process = None
        self._log = None

    def encoder_arguments(self) -> list[str]:
        raise NotImplementedError

    def convert(self, frames: np.ndarray) -> np.ndarray:
        """(T, H, W, 4) straight RGBA of the writer's depth -> the frames that are fed, (T, H', W', ...)."""
        raise NotImplementedError

    def fed_size(self, data: np.ndarray) -> tuple[int, int]:
        """(height, width) of the picture in what `convert` made."""
        return data.shape[1:3]

    def abort(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._log.close()
            self._process = None
        self._partial.unlink(missing_ok=True)

    def _append(self, frames):
        data = np.ascontiguousarray(self.convert(frames))
        if self._process is None:
            self._start(*self.fed_size(data))
        self._feed(data)

    def _finish(self):
        self._process.stdin.close()
        if self._process.wait() != 0:
            raise DataError(self._failure())
        self._log.close()
        self._process = None
        os.replace(self._partial, self.path)

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
        reason = ffmpeg.reason(self._log.read().decode(errors="replace"), self._partial)
        return f"{self.path}: writing failed ({reason})"
