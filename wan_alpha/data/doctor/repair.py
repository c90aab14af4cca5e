"""--fix: what can be repaired is written anew into another folder; the originals are only read."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wan_alpha.data.captions import join_captions, read_captions
from wan_alpha.data.clips import alpha_source, describe_clip, iter_clip
from wan_alpha.data.dataset_files import (
    DEFAULT_FPS,
    SkippedRow,
    finish_dataset,
    place_pair,
    start_dataset,
    unique_names,
    write_still,
    write_streams,
)
from wan_alpha.data.doctor.findings import Finding
from wan_alpha.data.doctor.pairing import find_lost_matte
from wan_alpha.data.doctor.run import Dataset, DoctorReport
from wan_alpha.data.doctor.streams import iter_joined, open_pair
from wan_alpha.data.manifest import BadRow, Row
from wan_alpha.data.parallel import map_rows
from wan_alpha.errors import ConfigError, DataError
from wan_alpha.media.alpha_source import find_source_state
from wan_alpha.media.matte_range import expand_limited
from wan_alpha.media.premultiplied import unpremultiply
from wan_alpha.media.probe import probe

# What --fix can do, and how it is told.
REPAIRS = {
    "unpremultiply": "colour divided by alpha, bled outwards under clear pixels",
    "re-pair": "the matte that belongs to the colour: found, swapped, or moved in time",
    "trim": "frames (or one line of pixels) that have no counterpart cut off",
    "threshold": "alpha up to the noise level set to 0",
    "expand": "alpha of 16 to 235 stretched to 0 to 255",
    "invert": "alpha turned the right way round",
    "leave out": "the second of two equal rows left out",
}


@dataclass(frozen=True)
class RepairReport:
    """What --fix did. `repaired`: row number -> names of the repairs; `left_out`: rows that could not be kept."""

    metadata_path: Path
    repaired: dict[int, tuple[str, ...]]
    left_out: tuple[SkippedRow, ...]

    def as_dict(self) -> dict:
        return {
            "metadata": str(self.metadata_path),
            "repaired": {str(row): list(names) for row, names in self.repaired.items()},
            "left_out": [{"row": row.row, "file": str(row.file), "reason": row.reason} for row in self.left_out],
        }


class _DuplicateError(DataError):
    """A row that is left out because an earlier one holds the same."""


def check_out_dir(out_dir, dataset: Dataset) -> Path:
    """The folder for repaired files, if it is new or empty and outside the dataset.

    Raises:
        ConfigError: it is not.
    """
    out_dir = Path(out_dir)
    if out_dir.resolve().is_relative_to(dataset.root.resolve()):
        raise ConfigError(f"{out_dir}: repaired files must lie outside the dataset {dataset.root}")
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise ConfigError(f"{out_dir}: give --fix a new folder; this one has files in it")
    return out_dir


def repair_dataset(
    dataset: Dataset,
    report: DoctorReport,
    out_dir,
    workers: int | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> RepairReport:
    """Write the whole dataset anew: clean rows copied, repairable ones repaired, the others left out and listed.

    Args:
        dataset: that was examined; report: what was found.
        out_dir: a new or empty folder outside the dataset.
        workers, progress: as examine_dataset.

    Raises:
        ConfigError: out_dir lies in the dataset or has files in it.
        DataError: no row can be kept.
    """
    out_dir = check_out_dir(out_dir, dataset)
    start_dataset(out_dir)
    names = unique_names(_stem(row) for row in dataset.rows)
    jobs = [
        (row, found.findings, name, out_dir, dataset.root)
        for row, found, name in zip(dataset.rows, report.reports, names, strict=True)
    ]
    records, repaired, left_out = [], {}, []
    for (row, _, name, _, _), outcome in zip(jobs, map_rows(repair_row, jobs, workers), strict=True):
        if isinstance(outcome, DataError):
            file = row.foreground if isinstance(row, Row) else Path(row.names[0] if row.names else "")
            left_out.append(SkippedRow(row.index, file, str(outcome), isinstance(outcome, _DuplicateError)))
        else:
            record, done = outcome
            records.append(record)
            if done:
                repaired[row.index] = done
        if progress:
            progress(len(records) + len(left_out), len(jobs), name)
    if not records:
        raise DataError(f"{dataset.root}: no row can be kept; the first: {left_out[0].reason}")
    return RepairReport(finish_dataset(out_dir, records, left_out), repaired, tuple(left_out))


def repair_row(row: Row | BadRow, findings: tuple[Finding, ...], name: str, out_dir: Path, root: Path):
    """Write one row; returns its record and the names of the repairs that it took.

    Raises:
        DataError: it has an error that cannot be repaired, or the repair failed.
    """
    if isinstance(row, BadRow):
        row = _recover(row, root)
        repairs = {"re-pair": Finding("bad_row", "error", row.foreground.name, "", "re-pair")}
    else:
        hopeless = next((f for f in findings if f.severity == "error" and f.repair is None), None)
        if hopeless:
            raise DataError(f"{hopeless.check}: {hopeless.message}")
        repairs = {finding.check: finding for finding in findings if finding.repair and not finding.is_clean}
    for finding in repairs.values():
        if finding.repair == "leave out":
            raise _DuplicateError(f"{finding.check}: {finding.message}")
    if "no_alpha" in repairs:
        row = _with_matte(row, find_lost_matte(row.foreground, root))
    if "colour_matte" in repairs:
        row = _swapped(row)
    done = tuple(dict.fromkeys(finding.repair for finding in repairs.values()))
    return _write(row, repairs, name, out_dir) | {"prompt": join_captions(row.captions)}, done


def _write(row: Row, repairs: dict[str, Finding], name: str, out_dir: Path) -> dict:
    colour = probe(row.foreground)
    fps = colour.fps or DEFAULT_FPS
    is_premultiplied = "premultiplied" in repairs or find_source_state(alpha_source(row)) == "premultiplied"
    is_plain = row.matte is not None and row.matte_range == "auto" and row.kind != "static" and not is_premultiplied
    if not repairs and is_plain and not colour.is_image and not probe(row.matte).is_image:
        info = describe_clip(row)
        return place_pair(out_dir, name, row.files, (info.height, info.width), info.num_frames, fps, link=False)
    frames = (_repaired(frame, repairs, is_premultiplied) for frame in _frames(row, repairs))
    if row.kind == "static" or colour.is_still:
        return write_still(out_dir, name, next(frames))
    return write_streams(out_dir, name, frames, fps)


def _frames(row: Row, repairs: dict[str, Finding]) -> Iterator[np.ndarray]:
    """The row's RGBA frames, colour as stored, streams of two lengths or moments brought together."""
    if row.matte is None:
        parts = iter_joined(row)
    else:
        offset = int(repairs["time_offset"].figures["frames"]) if "time_offset" in repairs else 0
        starts = max(offset, 0), max(-offset, 0)
        length = min(probe(file).num_frames - start for file, start in zip(row.files, starts, strict=True))
        parts = zip(*open_pair(row, starts, length), strict=True)
    for rgb, alpha in parts:
        yield np.dstack([rgb, alpha])


def _repaired(frame: np.ndarray, repairs: dict[str, Finding], is_premultiplied: bool) -> np.ndarray:
    """One frame after its repairs, straight; alpha before the colour that is divided by it."""
    alpha = frame[..., 3]
    if "limited_range" in repairs:
        alpha = expand_limited(alpha)
    if "inverted" in repairs:
        alpha = 255 - alpha
    if "matte_noise" in repairs:
        alpha = np.where(alpha <= repairs["matte_noise"].figures["threshold"], 0, alpha)
    frame[..., 3] = alpha
    if is_premultiplied:
        frame = unpremultiply(frame)
    if "odd_size" in repairs:
        frame = frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2]
    return frame


def _recover(row: BadRow, root: Path) -> Row:
    """A row whose matte is not where it should be, with the one that belongs to it.

    Raises:
        DataError: its colour cannot be used either, or no matte can be found.
    """
    foreground = Path(root) / row.names[0] if row.names and not row.leaves_root else None
    others_are_there = any((Path(root) / name).exists() for name in row.names[1:])
    if foreground is None or not foreground.is_file() or others_are_there:
        raise DataError(row.reason)
    prompt, *others = read_captions({"prompt": row.prompt})
    recovered = Row(row.index, foreground, prompt=prompt, other_prompts=tuple(others))
    return _with_matte(recovered, find_lost_matte(foreground, root))


def _with_matte(row: Row, matte: Path | None) -> Row:
    if matte is None:
        raise DataError(f"{row.foreground}: no matte, and none is found that has its name, size and length")
    return replace(row, matte=matte)


def _swapped(row: Row) -> Row:
    swapped = replace(row, foreground=row.matte, matte=row.foreground)
    next(iter_clip(swapped))  # a DataError here says that the other file is no matte either
    return swapped


def _stem(row: Row | BadRow) -> str:
    """The name that a row's new files begin with, without the words of colour and matte, which may be swapped."""
    if isinstance(row, BadRow):
        return Path(row.names[0] if row.names else "row").stem.removesuffix("_rgb")
    stem = row.foreground.stem.removesuffix("_rgb")
    return stem if row.matte is None else stem.removesuffix("_alpha")
