"""One clip in several formats at once; each is read back, and a manifest says what it is and how it was made."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from wan_alpha.errors import ConfigError, DataError
from wan_alpha.media.alpha_spool import AlphaSpool
from wan_alpha.media.backgrounds import iter_plates
from wan_alpha.media.clip_writer import to_depth
from wan_alpha.media.embedded import SOFTWARE, xmp_packet
from wan_alpha.media.formats import OutputFormat, open_writer
from wan_alpha.media.read_back import verify_output
from wan_alpha.media.verify import AlphaError


@dataclass(frozen=True)
class WrittenOutput:
    """One output of a clip.

    Attributes:
        path, output_format: where it is and in which format; alpha_error: of what was read back, None where opaque.
        width, height, num_frames, fps: of the clip; premultiplied: its colour is multiplied by alpha.
        problem: what was wrong when it was read back, None where nothing was.
    """

    path: Path
    output_format: OutputFormat
    alpha_error: AlphaError | None
    width: int
    height: int
    num_frames: int
    fps: float
    premultiplied: bool = False
    problem: str | None = None

    def as_dict(self) -> dict:
        """Plain JSON values; infinite dB, an exact copy, is "inf", which float() reads."""
        error = None
        if self.alpha_error is not None:
            psnr = self.alpha_error.psnr
            error = asdict(self.alpha_error) | {"psnr": psnr if np.isfinite(psnr) else "inf"}
        return {
            "file": self.path.name, "format": self.output_format.name, "width": self.width, "height": self.height,
            "num_frames": self.num_frames, "fps": self.fps,
            "colour": "premultiplied" if self.premultiplied else "straight", "alpha_error": error,
        } | ({} if self.problem is None else {"problem": self.problem})  # fmt: skip

    @property
    def alpha_summary(self) -> str:
        """What became of alpha, for people."""
        if self.alpha_error is None:
            return "opaque, no alpha"
        limit = " once made clear or opaque (semi-transparency is not kept)" if self.output_format.is_binary else ""
        return f"{self.alpha_error}{limit}"

    def __str__(self) -> str:
        return f"{self.path} ({self.output_format.name}): {self.alpha_summary}"


class ClipOutputs:
    """A context manager with `write(frames)`, like a single writer's; `verify()` after it.

    Args:
        targets: (path, OutputFormat) of each output; paths differ.
        fps: frames per second.
        premultiplied: store colour multiplied by alpha, where a format can be so; at least one must.
        background: of previews: "checkerboard", (R, G, B) in 0..255, or the path of a picture or clip.
        num_frames: how many frames will come, where known; sprite sheets are then nearly square.
        record: prompt, seed and settings as JSON values: put into the formats that take them, and into manifests.

    Raises:
        ConfigError: two outputs of one path, or options that a format refuses.
    """

    def __init__(
        self, targets: Sequence, fps: float, *, premultiplied: bool = False, background="checkerboard",
        num_frames: int | None = None, record: dict | None = None,
    ):  # fmt: skip
        self.targets = [(Path(path), output_format) for path, output_format in targets]
        self.fps, self.premultiplied, self.background = fps, premultiplied, background
        self.num_frames, self.record = num_frames, record or {}
        paths = [path.absolute() for path, _ in self.targets]
        if twice := {path for path in paths if paths.count(path) > 1}:
            raise ConfigError(f"{min(twice)}: two outputs of the same name; give each its own")
        if premultiplied and not any(map(_can_be_premultiplied, self.targets)):
            raise ConfigError("premultiplied has no effect: none of the formats carries more than clear and opaque")
        # Opening writers checks their options; files are made with the first frame.
        self._writers = [self._open(path, output_format) for path, output_format in self.targets]
        self._size, self._num_written, self._stack, self._spools = None, 0, None, {}

    def __enter__(self):
        self._stack = ExitStack()
        for writer in self._writers:
            self._stack.enter_context(writer)
        depths = {output_format.depth for _, output_format in self.targets if output_format.alpha}
        self._spools = {depth: AlphaSpool() for depth in depths}
        return self

    def __exit__(self, error_type, error, traceback):
        try:
            self._stack.__exit__(error_type, error, traceback)
        except BaseException:
            self._drop_spools()
            raise
        if error_type is not None:
            self._drop_spools()

    def write(self, frames: np.ndarray) -> None:
        """Append frames, (T, H, W, 4) uint8 or uint16 straight RGBA.

        Raises:
            DataError: as the writers.
        """
        by_depth = {frames.dtype.itemsize * 8: frames}
        if frames.dtype == np.uint16:
            by_depth[8] = to_depth(frames, 8)  # once, for all writers that want it
        if self._size is None and self.background not in (None, "checkerboard") and isinstance(self.background, Path):
            for writer in self._previews():
                writer.background = iter_plates(self.background, *frames.shape[1:3])
        self._size = frames.shape[1:3]
        for writer in self._writers:
            writer.write(by_depth.get(writer.depth, frames))
        for depth, spool in self._spools.items():
            spool.write(to_depth(frames, depth))
        self._num_written += len(frames)

    def verify(self, progress: Callable[[int], None] | None = None) -> list[WrittenOutput]:
        """Read every output that carries alpha back, once the `with` block has ended.

        Where one is not what it should be, all stay, each with its manifest, and that one's says what is wrong: a clip
        may have taken hours, and what went wrong can be looked at.

        Args:
            progress: called with the number of outputs that have been looked at.

        Returns:
            a WrittenOutput each, in the order of the targets.

        Raises:
            DataError: one lost its alpha; every one that did is named.
        """
        written, lost = [], []
        try:
            for path, output_format in self.targets:
                error = found = None
                if output_format.alpha:
                    try:
                        error = verify_output(path, output_format, self._spools[output_format.depth])
                    except DataError as problem:
                        found = str(problem)
                        lost.append(found)
                premultiplied = self.premultiplied and _can_be_premultiplied((path, output_format))
                height, width = self._size
                written.append(WrittenOutput(
                    path, output_format, error, width, height, self._num_written, self.fps, premultiplied, found
                ))  # fmt: skip
                if progress is not None:
                    progress(len(written))
        finally:
            self._drop_spools()
        if lost:
            for one in written:
                if one.path.exists():
                    write_manifest(one, self.record)
            raise DataError("\n".join([*lost, "what was written is still there; its manifest says what is wrong"]))
        return written

    def _open(self, path: Path, output_format: OutputFormat):
        options = {}
        if output_format.embeds == "texts":
            options["texts"] = self._texts()
        elif output_format.embeds == "xmp":
            options["xmp"] = xmp_packet(self._texts())
        if output_format.name == "sprites":
            options["num_frames"] = self.num_frames
        if output_format.name == "preview" and not isinstance(self.background, Path):
            options["background"] = self.background
        premultiplied = self.premultiplied and _can_be_premultiplied((path, output_format))
        return open_writer(path, output_format, self.fps, premultiplied, **options)

    def _previews(self):
        return [
            writer for writer, (_, chosen) in zip(self._writers, self.targets, strict=True) if chosen.name == "preview"
        ]

    def _texts(self) -> dict[str, str]:
        texts = {"software": SOFTWARE, "fps": f"{self.fps:g}"}
        texts["colour"] = "premultiplied" if self.premultiplied else "straight"
        if self.record.get("prompt"):
            texts["prompt"] = self.record["prompt"]
        if self.record:
            texts["settings"] = json.dumps(self.record, ensure_ascii=False)
        return texts

    def _drop_spools(self) -> None:
        for spool in self._spools.values():
            spool.__exit__()
        self._spools = {}


def manifest_path(path) -> Path:
    """The manifest of an output: `<its name>.manifest.json`, beside it."""
    path = Path(path)
    return path.with_name(f"{path.name}.manifest.json")


def write_manifest(written: WrittenOutput, record: dict) -> Path:
    """Write an output's manifest; it appears whole or not at all.

    Args:
        record: prompt, seed, models and settings ("recipe", as generate calls them) as JSON values.

    Returns:
        its path.

    Raises:
        DataError: the disk refused.
    """
    target = manifest_path(written.path)
    named = {"settings" if key == "recipe" else key: value for key, value in record.items()}
    content = {"software": SOFTWARE, **written.as_dict(), "sha256": output_sha256(written.path), **named}
    partial = target.with_name(f".{target.name}.partial")
    try:
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(partial, target)
    except OSError as error:
        raise DataError(f"{target}: writing failed ({error})") from error
    finally:
        partial.unlink(missing_ok=True)
    return target


def read_manifest(path) -> dict:
    """The manifest beside an output, or {} where there is none that can be read."""
    try:
        content = json.loads(manifest_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def output_sha256(path) -> str:
    """Hash of a file, or of a folder's numbered frames in order, as hex."""
    path = Path(path)
    if not path.is_dir():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for frame in sorted(path.glob("[0-9][0-9][0-9][0-9][0-9].png")):
        digest.update(frame.read_bytes())
    return digest.hexdigest()


def _can_be_premultiplied(target) -> bool:
    _, output_format = target
    return output_format.alpha not in (None, "matte") and not output_format.is_binary
