"""A folder of clips as it was found -> a checked dataset with metadata.csv.

    out/
      metadata.csv         video_fgr, video_pha, prompt, type, num_frames, width, height, fps
      videos/NAME_rgb.*    straight colour
      videos/NAME_alpha.*  the matte
      stills/NAME.png      straight RGBA, type "static"
      skipped.csv          row, file, reason: what was left out, if anything was

Pairs are copied as they are; RGBA clips are split into two FFV1 streams, which keep every level of alpha.
"""

import csv
import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from wan_alpha.data.clips import describe_clip, iter_clip
from wan_alpha.data.discover import Source, discover_sources
from wan_alpha.data.manifest import Row, write_manifest
from wan_alpha.errors import ConfigError, DataError
from wan_alpha.media.stills import is_image_path
from wan_alpha.media.write import LosslessWriter, write_png

# Folders of frames name no frame rate; 16 is Wan's own.
DEFAULT_FPS = 16.0


@dataclass(frozen=True)
class SkippedRow:
    row: int
    file: Path
    reason: str


@dataclass(frozen=True)
class PrepareReport:
    """What became of a folder: rows written, rows left out, and rows without a caption among those written."""

    metadata_path: Path
    num_rows: int
    num_without_prompt: int
    skipped: tuple[SkippedRow, ...]


def prepare_dataset(
    source_dir,
    out_dir,
    *,
    skip_bad: bool = False,
    link: bool = False,
    workers: int = 1,
    progress: Callable[[int, int, str], None] | None = None,
) -> PrepareReport:
    """Check every clip of `source_dir` frame by frame and write the dataset drawn above.

    Args:
        source_dir: see discover.discover_sources for the layouts.
        out_dir: created if missing; must not lie inside source_dir. Files of an earlier run with the same names are
            replaced.
        skip_bad: leave bad rows out and list them, instead of stopping at the first.
        link: hard-link pair files instead of copying them, where the file system can.
        workers: rows worked on at the same time.
        progress: called as progress(done, total, name) after each row.

    Raises:
        ConfigError: out_dir lies inside source_dir, or workers below 1.
        DataError: a row is bad (its number, file and reason are named), or no row is good. metadata.csv is not written
            then.
    """
    source_dir, out_dir = Path(source_dir), Path(out_dir)
    if out_dir.resolve().is_relative_to(source_dir.resolve()):
        raise ConfigError(f"{out_dir}: the prepared dataset must lie outside its source folder {source_dir}")
    if workers < 1:
        raise ConfigError(f"workers = {workers} must be at least 1")
    sources = discover_sources(source_dir)
    names = _unique_names(sources)
    for folder in (out_dir / "videos", out_dir / "stills"):
        folder.mkdir(parents=True, exist_ok=True)
    # Should this run fail, the list of an earlier one would name files that are no longer those it checked.
    (out_dir / "metadata.csv").unlink(missing_ok=True)
    records, skipped = [], []
    with ThreadPoolExecutor(workers) as pool:
        jobs = [
            pool.submit(_prepare_row, i, *job, out_dir, link)
            for i, job in enumerate(zip(sources, names, strict=True), 1)
        ]
        for index, (source, job) in enumerate(zip(sources, jobs, strict=True), 1):
            try:
                records.append(job.result())
            except DataError as error:
                if not skip_bad:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise DataError(f"row {index} ({source.foreground.name}): {error}") from error
                skipped.append(SkippedRow(index, source.foreground, str(error)))
            if progress:
                progress(index, len(sources), source.name)
    _write_skipped(out_dir / "skipped.csv", skipped)
    if not records:
        raise DataError(f"{source_dir}: none of {len(sources)} rows is good; the first: {skipped[0].reason}")
    write_manifest(out_dir / "metadata.csv", records)
    without_prompt = sum(not record["prompt"] for record in records)
    return PrepareReport(out_dir / "metadata.csv", len(records), without_prompt, tuple(skipped))


def _prepare_row(index: int, source: Source, name: str, out_dir: Path, link: bool) -> dict:
    if source.problem:
        raise DataError(source.problem)
    row = Row(index, source.foreground, source.matte, source.prompt)
    info = describe_clip(row)
    fps = info.fps or DEFAULT_FPS
    frames = _AlphaGuard(row)
    if info.num_frames == 1:
        target = f"stills/{name}.png"
        (frame,) = frames  # to the end, so that alpha is judged before anything is written
        write_png(out_dir / target, frame)
        files = {"video_fgr": target, "video_pha": "", "type": "static"}
    elif row.matte is not None and not is_image_path(row.foreground) and not is_image_path(row.matte):
        for _ in frames:
            pass  # decoding both to the end is the check
        rgb, matte = (
            f"videos/{name}_{s}{p.suffix.lower()}" for s, p in (("rgb", row.foreground), ("alpha", row.matte))
        )
        _place(row.foreground, out_dir / rgb, link)
        _place(row.matte, out_dir / matte, link)
        files = {"video_fgr": rgb, "video_pha": matte, "type": "video"}
    else:
        rgb, matte = f"videos/{name}_rgb.mkv", f"videos/{name}_alpha.mkv"
        with (
            LosslessWriter(out_dir / rgb, fps, "rgb") as colours,
            LosslessWriter(out_dir / matte, fps, "matte") as mattes,
        ):
            for frame in frames:
                colours.write(frame[None])
                mattes.write(frame[None])
        files = {"video_fgr": rgb, "video_pha": matte, "type": "video"}
    size = {"num_frames": frames.num_frames, "width": info.width, "height": info.height, "fps": f"{fps:g}"}
    return {**files, "prompt": source.prompt, **size}


class _AlphaGuard:
    """A row's frames, checked as they pass: at the end, alpha that never was anything but 0, or 255, is an error."""

    def __init__(self, row: Row):
        self.row = row
        self.num_frames = 0

    def __iter__(self):
        lowest, highest = 255, 0
        for frame in iter_clip(self.row):
            lowest, highest = min(lowest, int(frame[..., 3].min())), max(highest, int(frame[..., 3].max()))
            self.num_frames += 1
            yield frame
        if highest == 0:
            raise DataError(f"{self.row.files[-1]}: alpha is 0 everywhere, there is nothing to see")
        if lowest == 255:
            raise DataError(
                f"{self.row.files[-1]}: alpha is 255 everywhere, nothing is transparent; was alpha lost on the way?"
            )


def _place(source: Path, target: Path, link: bool) -> None:
    partial = target.with_name(f".{target.stem}.partial{target.suffix}")
    partial.unlink(missing_ok=True)
    try:
        if link:
            try:
                os.link(source, partial)
            except OSError:  # another file system, or one without links
                shutil.copyfile(source, partial)
        else:
            shutil.copyfile(source, partial)
        os.replace(partial, target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"{source}: copying to {target} failed ({error})") from error


def _unique_names(sources: list[Source]) -> list[str]:
    """File names made of each source's path, of letters, digits, - and _; no two differ in case alone."""
    names, taken = [], set()
    for source in sources:
        base = name = re.sub(r"[^\w-]+", "_", source.name.replace("/", "-")).strip("_") or "clip"
        count = 1
        while name.lower() in taken:
            count += 1
            name = f"{base}-{count}"
        taken.add(name.lower())
        names.append(name)
    return names


def _write_skipped(path: Path, skipped: list[SkippedRow]) -> None:
    path.unlink(missing_ok=True)
    if skipped:
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["row", "file", "reason"])
            writer.writerows([[row.row, row.file, row.reason] for row in skipped])
