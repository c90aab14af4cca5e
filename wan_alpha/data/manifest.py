"""The list of a dataset's clips: metadata.csv or .jsonl.

Columns: `video_fgr` and `video_pha` (colour and matte; an empty `video_pha` means one RGBA file), or `video` (one RGBA
file, or `X_rgb.*` whose `X_alpha.*` lies beside it); `prompt`, one caption or several (data.captions); `type`, "static"
for stills. Optional: `packing`, `source_state` and `matte_range`, how the files are read (media.alpha_source);
`num_frames`, `height` and `width`, by which buckets are chosen without opening the files. Others are ignored.
"""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from wan_alpha.data.captions import read_captions
from wan_alpha.errors import DataError
from wan_alpha.media.missing import no_such
from wan_alpha.media.packed import PACKINGS
from wan_alpha.media.premultiplied import SOURCE_STATES

COLUMNS = ("video_fgr", "video_pha", "prompt", "type", "num_frames", "width", "height", "fps")
KINDS = ("video", "static")
# Columns that say how a row's files are read -> their values, the first where a cell is empty.
READING_COLUMNS = {
    "packing": PACKINGS,
    "source_state": SOURCE_STATES,
    "matte_range": ("auto", "full", "limited"),
}


@dataclass(frozen=True)
class Row:
    """One clip.

    Attributes:
        index: row number in its manifest, counted from 1 below the header.
        foreground: the colour video, or the one RGBA file.
        matte: the alpha video; None when `foreground` carries alpha itself.
        prompt: caption, "" where there is none.
        kind: "video", or "static" for a still that becomes a clip by a pan.
        packing, source_state, matte_range: how the files are read; see media.alpha_source.AlphaSource.
        other_prompts: more captions of the same clip.
        listed_shape: (num_frames, height, width) as the manifest has them, which may be wrong; None if it has not all.
    """

    index: int
    foreground: Path
    matte: Path | None = None
    prompt: str = ""
    kind: str = "video"
    packing: str = "none"
    source_state: str = "straight"
    matte_range: str = "auto"
    other_prompts: tuple[str, ...] = ()
    listed_shape: tuple[int, int, int] | None = None

    @property
    def captions(self) -> tuple[str, ...]:
        """All captions, at least one, which may be ""."""
        return (self.prompt, *self.other_prompts)

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.foreground,) if self.matte is None else (self.foreground, self.matte)

    @property
    def reading(self) -> dict[str, str]:
        """How the files are read, where that is not the usual way: column -> value."""
        values = {column: getattr(self, column) for column in READING_COLUMNS}
        return {column: value for column, value in values.items() if value != READING_COLUMNS[column][0]}


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used: its number, the files as it names them, and why.

    `leaves_root`: it names a file outside the dataset's folder.
    """

    index: int
    names: tuple[str, ...]
    reason: str
    leaves_root: bool = False
    prompt: str = ""


class _OutsideError(DataError):
    """A path that leaves the dataset's folder."""


def read_manifest(path, base_path=None) -> list[Row]:
    """Read and check every row.

    Args:
        path: metadata.csv, .jsonl or .json (a list of objects); UTF-8, a byte order mark is tolerated.
        base_path: folder that the rows' paths start from and must not leave; the manifest's own folder if None.

    Raises:
        DataError: the manifest cannot be read, has no rows, or a row is wrong; row number, file and reason are named.
    """
    rows = read_rows(path, base_path)
    for row in rows:
        if isinstance(row, BadRow):
            raise DataError(f"{path}, row {row.index}: {row.reason}")
    return rows


def read_rows(path, base_path=None, caption_column: str = "prompt") -> list[Row | BadRow]:
    """Read every row, those that cannot be used too. Arguments as read_manifest.

    Args:
        caption_column: column that holds the captions.

    Raises:
        DataError: the manifest itself cannot be read, or has no rows.
    """
    path = Path(path)
    base_path = path.parent if base_path is None else Path(base_path)
    rows = []
    for index, record in enumerate(_read_records(path), 1):
        if caption_column != "prompt":
            others = {column: value for column, value in record.items() if not str(column).startswith("prompt_")}
            record = {**others, "prompt": record.get(caption_column)}
        try:
            row = parse_row(index, record, base_path)
            for file in row.files:
                _require_file(file)
        except DataError as error:
            named = [name for name in (_text(record, column) for column in ("video_fgr", "video_pha", "video")) if name]
            row = BadRow(index, tuple(named), str(error), isinstance(error, _OutsideError), _text(record, "prompt"))
        rows.append(row)
    if not rows:
        raise DataError(f"{path}: the manifest has no rows")
    return rows


def find_manifest(folder) -> Path | None:
    """The metadata.csv, .jsonl or .json of a folder, in this order; None where there is none."""
    names = (Path(folder) / f"metadata.{suffix}" for suffix in ("csv", "jsonl", "json"))
    return next((path for path in names if path.is_file()), None)


def leaves_root(file: Path, root) -> Path | None:
    """Where a link leads that leaves the folder `root`; None for a file that lies in it."""
    target = file.resolve()
    return None if target.is_relative_to(Path(root).resolve()) else target


def parse_row(index: int, record: dict, base_path="") -> Row:
    """Turn one record (column -> value) into a Row; whether its files exist is not looked at.

    Args:
        index: row number, kept in the row.
        record: the columns described above.
        base_path: folder that paths start from and must not leave; "" takes paths as they are.

    Raises:
        DataError: no file is named, a path leaves base_path, or `type` is unknown.
    """
    prompt, *other_prompts = read_captions(record)
    more = {"other_prompts": tuple(other_prompts), "listed_shape": _listed_shape(record)}
    kind = _text(record, "type").lower() or "video"
    if kind not in KINDS:
        raise DataError(f"type {kind!r} is not one of {', '.join(KINDS)}")
    reading = {column: _choice(record, column, known) for column, known in READING_COLUMNS.items()}
    foreground = _text(record, "video_fgr")
    if foreground:
        matte = _text(record, "video_pha")
        if matte and reading["packing"] != "none":
            raise DataError(f"alpha is either in video_pha or packed ({reading['packing']}), not both")
        matte_path = _inside(base_path, matte) if matte else None
        return Row(index, _inside(base_path, foreground), matte_path, prompt, kind, **reading, **more)
    if video := _text(record, "video"):
        file = _inside(base_path, video)
        matte_path = find_matte_beside(file) if reading["packing"] == "none" else None
        return Row(index, file, matte_path, prompt, kind, **reading, **more)
    if _text(record, "video_pha"):
        raise DataError("video_pha names a matte, but video_fgr is empty")
    raise DataError(
        f"no file is named: fill video_fgr (and video_pha) or video; columns are {', '.join(map(str, record))}"
    )


def find_matte_beside(foreground: Path) -> Path | None:
    """The `X_alpha.*` that belongs to `X_rgb.*`, same suffix first; None if the name is another or nothing is there.

    Raises:
        DataError: several files could be meant.
    """
    stem = foreground.stem
    if not stem.endswith("_rgb"):
        return None
    wanted = stem.removesuffix("_rgb") + "_alpha"
    same = foreground.with_name(wanted + foreground.suffix)
    if same.exists():
        return same
    folder = foreground.parent
    found = sorted(p for p in folder.iterdir() if p.stem == wanted and p.suffix != ".txt") if folder.is_dir() else []
    if len(found) > 1:
        raise DataError(f"{foreground}: several mattes could be meant: {', '.join(p.name for p in found)}")
    return found[0] if found else None


def write_manifest(path, records: Iterable[dict]) -> None:
    """Write records with the COLUMNS above, as .csv or .jsonl by the name; the file appears whole or not at all.

    READING_COLUMNS are written where a record has them.

    Raises:
        DataError: a record has a column that is neither in COLUMNS nor in READING_COLUMNS.
    """
    path, records = Path(path), list(records)
    columns = [*COLUMNS, *(name for name in READING_COLUMNS if any(name in record for record in records))]
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "w", encoding="utf-8", newline="") as file:
            if path.suffix == ".jsonl":
                file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
            else:
                writer = csv.DictWriter(file, columns, lineterminator="\n")
                writer.writeheader()
                writer.writerows(records)
        os.replace(partial, path)
    except ValueError as error:
        raise DataError(f"{path}: {error}; columns are {', '.join((*COLUMNS, *READING_COLUMNS))}") from error
    finally:
        partial.unlink(missing_ok=True)


def _read_records(path: Path) -> Iterator[dict]:
    if not path.is_file():
        raise DataError(no_such(path, "manifest"))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error}); save the manifest as UTF-8") from error
    if path.suffix == ".csv":
        return _csv_records(path, text)
    if path.suffix in (".json", ".jsonl"):
        return _json_records(path, text)
    raise DataError(f"{path}: a manifest is a .csv, .jsonl or .json file")


def _csv_records(path: Path, text: str) -> Iterator[dict]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    columns = [name.strip() for name in reader.fieldnames or []]
    if not {"video_fgr", "video"} & set(columns):
        raise DataError(f"{path}: the header needs video_fgr or video, it has {', '.join(columns) or 'nothing'}")
    reader.fieldnames = columns
    index = 0
    while True:
        index += 1
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{path}, row {index}: not valid CSV ({error})") from error
        if record is None:
            return
        if None in record:
            raise DataError(
                f"{path}, row {index}: more values than columns; put a prompt that has commas in double quotes"
            )
        yield record


def _json_records(path: Path, text: str) -> Iterator[dict]:
    # Not splitlines(): JSON strings may hold the other characters that it takes for line ends.
    lines = [text] if path.suffix == ".json" else [line for line in text.split("\n") if line.strip()]
    records = []
    for index, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, row {index}: not valid JSON ({error})") from error
    if path.suffix == ".json":
        records = records[0]
    if not isinstance(records, list):
        raise DataError(f"{path}: the file must hold a list of objects")
    for index, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise DataError(f"{path}, row {index}: not an object with columns, but {type(record).__name__}")
        yield record


def _text(record: dict, column: str) -> str:
    value = record.get(column)
    # pandas turns an empty cell into NaN, the one value that differs from itself.
    return "" if value is None or value != value else str(value).strip()


def _listed_shape(record: dict) -> tuple[int, int, int] | None:
    values = [_text(record, column).removesuffix(".0") for column in ("num_frames", "height", "width")]
    if all(value.isdecimal() and int(value) > 0 for value in values):
        return tuple(map(int, values))
    return None


def _choice(record: dict, column: str, known: tuple[str, ...]) -> str:
    value = _text(record, column).lower() or known[0]
    if value not in known:
        raise DataError(f"{column} {value!r} is not one of {', '.join(known)}")
    return value


def _require_file(file: Path) -> None:
    try:
        there = file.exists()
    except OSError as error:  # a name that the file system cannot hold
        raise DataError(f"{file.name[:60]}...: not a file name ({error.strerror})") from error
    if not there:
        raise DataError(no_such(file))


def _inside(base_path, name: str) -> Path:
    if "\0" in name:
        raise DataError(f"{name!r}: a path cannot hold a zero byte")
    if not str(base_path):
        return Path(name)
    base = os.path.abspath(base_path)
    # Lexically, without following links: a dataset may link to files elsewhere, but its text may not name them.
    path = os.path.abspath(os.path.join(base, name))
    if os.path.commonpath([base, path]) != base or path == base:
        raise _OutsideError(f"{name}: the path leaves the dataset folder {base}")
    return Path(path)
