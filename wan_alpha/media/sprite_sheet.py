"""Sprite sheets for game engines: all frames in one PNG (or a few), and a JSON file that says where each is."""

import json
import math
import os
import zlib
from pathlib import Path

import numpy as np

from wan_alpha.errors import DataError
from wan_alpha.media.clip_writer import ClipWriter, require_rgba
from wan_alpha.media.png_codec import SIGNATURE, chunk, filter_rows, header_chunk, new_compressor, text_chunks

_APP = "wan_alpha"
_SHEET_SUFFIXES = {".png", ".webp"}
LARGEST_SIDE = 4096  # pixels: what every GPU of the last ten years holds as one texture


class SpriteSheetWriter(ClipWriter):
    """Straight RGBA frames side by side, row by row; `<stem>.json` beside it in TexturePacker's "JSON array" form.

    Where one sheet is not enough, `<stem>-1.png` with `<stem>-1.json` follow, and so on. One row of frames is in memory
    at a time.

    Args:
        path: *.png; fps: frames per second, in the JSON as milliseconds per frame.
        num_frames: how many will come, where known: the sheet is then nearly square. None fills rows to the limit.
        largest_side: pixels of a sheet.
        texts: keyword -> text, stored in the sheets.
    """

    suffix = ".png"

    def __init__(
        self, path, fps: float = 16.0, num_frames: int | None = None, largest_side: int = LARGEST_SIDE, texts=None
    ):
        super().__init__(path, fps)
        self.expected_frames, self.largest_side, self.texts = num_frames, largest_side, texts
        self._sheets, self._row, self._file = [], [], None

    def abort(self):
        if self._file is not None:
            self._file.close()
            self._file = None
        for sheet in self._sheets:
            sheet["partial"].unlink(missing_ok=True)
        self._sheets, self._row = [], []

    def _begin(self, height, width):
        if max(height, width) > self.largest_side:
            raise DataError(
                f"{self.path}: a frame of {width}x{height} is more than a sheet's {self.largest_side} pixels"
            )
        if not self.path.parent.is_dir():
            raise DataError(f"{self.path}: the folder {self.path.parent} does not exist")
        self._rows = self.largest_side // height
        self._columns = self.largest_side // width
        if self.expected_frames:
            square = math.ceil(math.sqrt(self.expected_frames * height / width))
            needed = math.ceil(self.expected_frames / self._rows)  # fewer columns would begin another sheet
            self._columns = max(1, min(self._columns, max(square, needed)))

    def _append(self, frames):
        for frame in require_rgba(self.path, frames):
            self._row.append(frame.copy())
            if len(self._row) == self._columns:
                self._flush_row()

    def _flush_row(self) -> None:
        if self._file is None:
            self._open_sheet(len(self._row))
        sheet = self._sheets[-1]
        height, width = self._size
        band = np.zeros((height, sheet["columns"] * width, 4), np.uint8)
        for column, frame in enumerate(self._row):
            band[:, column * width : (column + 1) * width] = frame
        data = self._compressor.compress(filter_rows(band, self._above)) + self._compressor.flush(zlib.Z_SYNC_FLUSH)
        self._file.write(chunk(b"IDAT", data))
        self._above = band[-1]
        sheet["num_rows"] += 1
        sheet["num_frames"] += len(self._row)
        self._row = []
        if sheet["num_rows"] == self._rows:
            self._close_sheet()

    def _open_sheet(self, columns: int) -> None:
        number = len(self._sheets)
        partial = self._partial.with_name(f"{self._partial.stem}-{number}.png")
        self._sheets.append({"partial": partial, "columns": columns, "num_rows": 0, "num_frames": 0})
        self._file = open(partial, "w+b")
        self._write_head(columns * self._size[1], self._size[0])
        self._compressor, self._above = new_compressor(), None

    def _write_head(self, width: int, height: int) -> None:
        self._file.seek(0)
        self._file.write(SIGNATURE + header_chunk(width, height) + text_chunks(self.texts))

    def _close_sheet(self) -> None:
        sheet = self._sheets[-1]
        self._file.write(chunk(b"IDAT", self._compressor.flush()) + chunk(b"IEND", b""))
        self._write_head(sheet["columns"] * self._size[1], sheet["num_rows"] * self._size[0])
        self._file.close()
        self._file = None

    def _finish(self):
        if self._row:
            self._flush_row()
        if self._file is not None:
            self._close_sheet()
        names = [sheet_path(self.path, number) for number in range(len(self._sheets))]
        _remove_stale(self.path, len(names))
        first = 0
        for sheet, path in zip(self._sheets, names, strict=True):
            os.replace(sheet["partial"], path)
            text = json.dumps(self._description(sheet, path, names, first), indent=1)
            path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
            first += sheet["num_frames"]

    def _description(self, sheet, path, names, first: int) -> dict:
        height, width = self._size
        ends = [round(1000 * number / self.fps) for number in range(first, first + sheet["num_frames"] + 1)]
        frames = []
        for number in range(sheet["num_frames"]):
            row, column = divmod(number, sheet["columns"])
            frames.append({
                "filename": f"{self.path.stem}_{first + number:05d}",
                "frame": {"x": column * width, "y": row * height, "w": width, "h": height},
                "rotated": False, "trimmed": False,
                "spriteSourceSize": {"x": 0, "y": 0, "w": width, "h": height},
                "sourceSize": {"w": width, "h": height},
                "duration": ends[number + 1] - ends[number],
            })  # fmt: skip
        meta = {
            "app": _APP, "version": "1.0", "image": path.name, "format": "RGBA8888", "scale": "1",
            "size": {"w": sheet["columns"] * width, "h": sheet["num_rows"] * height},
            "fps": self.fps, "alpha": "premultiplied" if self.premultiplied else "straight",
            "related_multi_packs": [name.with_suffix(".json").name for name in names if name != path],
        }  # fmt: skip
        return {"frames": frames, "meta": meta}


def _remove_stale(path, number: int) -> None:
    """Remove the sheets of an earlier, longer clip, from `number` on; files of other programs stay."""
    while (sheet := sheet_path(path, number)).exists():
        described = sheet.with_suffix(".json")
        try:
            if json.loads(described.read_text(encoding="utf-8"))["meta"]["app"] != _APP:
                return
        except (OSError, ValueError, LookupError, TypeError):
            return
        sheet.unlink()
        described.unlink()
        number += 1


def sheet_path(path, number: int):
    """The sheet of that number: `path` itself for the first, `<stem>-<number>.png` for those that follow."""
    return path if number == 0 else path.with_name(f"{path.stem}-{number}.png")


def count_listed_frames(path) -> int:
    """Frames that the JSON beside a picture lists, as sprite sheets have it; 0 where there is none of that kind."""
    path = Path(path)
    if path.suffix.lower() not in _SHEET_SUFFIXES:
        return 0
    try:
        listed = json.loads(path.with_suffix(".json").read_text(encoding="utf-8-sig"))
        return len(listed["frames"]) if "meta" in listed else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def sheet_warning(path) -> str | None:
    """What a user should know who reads a sprite sheet, which is taken for one still; None for other files."""
    if count := count_listed_frames(path):
        return f"{path}: a sprite sheet of {count} frames by the JSON beside it, read as one still; give its frames"
    return None
