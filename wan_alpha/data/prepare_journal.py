"""What `prepare` has written, remembered row by row, so that an interrupted run goes on where it was."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from wan_alpha.data.discover import Source

JOURNAL = ".prepare"
# Raised when files come out differently than before, so that no old ones are taken for new.
_FORMAT = 2


@dataclass(frozen=True)
class Part:
    """One clip that was written: its row of metadata.csv without a caption, and its look."""

    record: dict
    fingerprint: np.ndarray

    @property
    def files(self) -> list[str]:
        return [name for name in (self.record["video_fgr"], self.record["video_pha"]) if name]


@dataclass(frozen=True)
class PreparedRow:
    """A source's clips (several where scenes were split); reasons for those left out; written by an earlier run?"""

    parts: tuple[Part, ...]
    left_out: tuple[str, ...] = ()
    was_kept: bool = False


def settings_key(source: Source, link: bool, settings) -> str:
    """Hash of everything that the written files follow from; captions are not part of them.

    Args:
        settings: a dataclass of plain values.
    """
    files = [file for path in (source.foreground, source.matte) if path is not None for file in _members(path)]
    states = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.exists()]
    reading = [str(source.matte), source.kind, source.packing, source.source_state, source.matte_range]
    content = [_FORMAT, states, reading, link, asdict(settings)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _entry(out_dir: Path, name: str) -> Path:
    return out_dir / JOURNAL / f"{name}.json"


def _members(path: Path) -> list[Path]:
    return sorted(path.iterdir()) if path.is_dir() else [path]


def read_journal(out_dir: Path, name: str, key: str, with_dropped: bool = False) -> PreparedRow | None:
    """What an earlier run wrote under `name`, if it is all still there and nothing that it follows from has changed.

    Args:
        with_dropped: files that were dropped again as near duplicates need not be there.
    """
    try:
        entry = json.loads(_entry(out_dir, name).read_text(encoding="utf-8"))
        if entry["key"] != key:
            return None
        dropped = entry["dropped"] if with_dropped else []
        for file, size in entry["files"].items():
            if file not in dropped and (out_dir / file).stat().st_size != size:
                return None
        parts = [Part(part["record"], np.array(part["fingerprint"], np.uint8)) for part in entry["parts"]]
        return PreparedRow(tuple(parts), tuple(entry["left_out"]), was_kept=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_journal(out_dir: Path, name: str, key: str, row: PreparedRow) -> None:
    """Remember what was written; the entry appears whole or not at all."""
    path = _entry(out_dir, name)
    sizes = {name: (out_dir / name).stat().st_size for part in row.parts for name in part.files}
    parts = [{"record": part.record, "fingerprint": part.fingerprint.tolist()} for part in row.parts]
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, {"key": key, "files": sizes, "parts": parts, "left_out": row.left_out, "dropped": []})


def drop_part(out_dir: Path, name: str, part: Part) -> None:
    """Remove a part's files, and remember that they are gone on purpose."""
    entry = json.loads(_entry(out_dir, name).read_text(encoding="utf-8"))
    entry["dropped"] = sorted({*entry["dropped"], *part.files})
    _replace(_entry(out_dir, name), entry)
    for file in part.files:
        (out_dir / file).unlink(missing_ok=True)


def _replace(path: Path, entry: dict) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(entry), encoding="utf-8")
    os.replace(partial, path)
