"""The files of a dataset that the toolkit writes.

out/
  metadata.csv         video_fgr, video_pha, prompt, type, num_frames, width, height, fps
  metadata.jsonl       the same
  videos/NAME_rgb.*    straight colour
  videos/NAME_alpha.*  the matte
  stills/NAME.png      straight RGBA, type "static"
  skipped.csv          row, file, reason: what was left out, if anything was
"""

import csv
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wan_alpha.data.manifest import write_manifest
from wan_alpha.errors import DataError
from wan_alpha.media.matte_range import look_at_matte
from wan_alpha.media.write import LosslessWriter, write_png

# Folders of frames name no frame rate; 16 is Wan's own.
DEFAULT_FPS = 16.0
METADATA = ("metadata.csv", "metadata.jsonl")


@dataclass(frozen=True)
class SkippedRow:
    """A row that is not in the list: its number, its file, why; `is_duplicate`: another row has all that it had."""

    row: int
    file: Path
    reason: str
    is_duplicate: bool = False


def start_dataset(out_dir: Path) -> None:
    """Make the folders, and remove the lists of an earlier run: should this one fail, they would name other files."""
    for folder in (out_dir / "videos", out_dir / "stills"):
        folder.mkdir(parents=True, exist_ok=True)
    for name in METADATA:
        (out_dir / name).unlink(missing_ok=True)


def finish_dataset(out_dir: Path, records: list[dict], skipped: list[SkippedRow]) -> Path:
    """Write the lists; returns the path of metadata.csv."""
    path = out_dir / "skipped.csv"
    path.unlink(missing_ok=True)
    if skipped:
        with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["row", "file", "reason"])
            writer.writerows([[row.row, row.file, row.reason] for row in skipped])
    for name in METADATA:
        write_manifest(out_dir / name, records)
    return out_dir / METADATA[0]


def write_still(out_dir: Path, name: str, frame: np.ndarray) -> dict:
    """One straight RGBA frame, (H, W, 4) uint8, as stills/NAME.png; returns its record."""
    target = f"stills/{name}.png"
    write_png(out_dir / target, frame)
    return _record({"video_fgr": target, "video_pha": "", "type": "static"}, frame.shape, 1, DEFAULT_FPS)


def write_streams(out_dir: Path, name: str, frames: Iterable[np.ndarray], fps: float) -> dict:
    """Straight RGBA frames as two FFV1 streams, which keep every level; returns their record."""
    rgb, matte = f"videos/{name}_rgb.mkv", f"videos/{name}_alpha.mkv"
    with (
        LosslessWriter(out_dir / rgb, fps, "rgb") as colours,
        LosslessWriter(out_dir / matte, fps, "matte") as mattes,
    ):
        for frame in frames:
            colours.write(frame[None])
            mattes.write(frame[None])
            shape = frame.shape
    files = {"video_fgr": rgb, "video_pha": matte, "type": "video"}
    if look_at_matte(out_dir / matte).levels == "limited":
        files["matte_range"] = "full"  # what is written is of full range, even where it never leaves 16 to 235
    return _record(files, shape, colours.num_frames, fps)


def place_pair(
    out_dir: Path, name: str, files: tuple[Path, Path], shape: tuple[int, ...], num_frames: int, fps: float, link: bool
) -> dict:
    """Copy (or link) the two files of a pair, whose frames have this (H, W, ...) shape; returns their record."""
    kinds = zip(("rgb", "alpha"), files, strict=True)
    rgb, matte = (f"videos/{name}_{kind}{file.suffix.lower()}" for kind, file in kinds)
    place(files[0], out_dir / rgb, link)
    place(files[1], out_dir / matte, link)
    return _record({"video_fgr": rgb, "video_pha": matte, "type": "video"}, shape, num_frames, fps)


def place(source: Path, target: Path, link: bool) -> None:
    """Copy a file, or hard-link it where the file system can; it appears whole or not at all.

    Raises:
        DataError: the disk refused.
    """
    partial = target.with_name(f".{target.stem}.partial{target.suffix}")
    partial.unlink(missing_ok=True)
    try:
        if link:
            try:
                os.link(source.resolve(), partial)
            except OSError:  # another file system, or one without links
                shutil.copyfile(source, partial)
        else:
            shutil.copyfile(source, partial)
        os.replace(partial, target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"{source}: copying to {target} failed ({error})") from error


def unique_names(names: Iterable[str]) -> list[str]:
    """File names made of paths, of letters, digits, - and _; no two differ in case alone."""
    chosen, taken = [], set()
    for path in names:
        base = name = re.sub(r"[^\w-]+", "_", path.replace("/", "-")).strip("_")[:120] or "clip"
        count = 1
        while name.lower() in taken:
            count += 1
            name = f"{base}-{count}"
        taken.add(name.lower())
        chosen.append(name)
    return chosen


def _record(files: dict, shape: tuple[int, ...], num_frames: int, fps: float) -> dict:
    height, width = shape[:2]
    return {**files, "num_frames": num_frames, "width": width, "height": height, "fps": f"{fps:g}"}
