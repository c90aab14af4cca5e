"""What doctor leaves behind: a table, doctor.json, and the contact sheet."""

import base64
import json
import os
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from wan_alpha.data.doctor.row import RowReport
from wan_alpha.data.doctor.run import DoctorReport

JSON_FILE, SHEET_FILE = "doctor.json", "contact_sheet.html"
_STYLES = {"error": "red", "warning": "yellow"}
_PLAIN_WIDTH = 160  # columns, where the output is not a terminal


def print_table(report: DoctorReport, console: Console | None = None) -> None:
    """Every error and warning in a row of its own, how often each note occurs, then one line that counts them."""
    console = console or Console()
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    table = Table("row", "file", "check", "finding", "--fix")
    for row, file, check, message, repair in finding_rows(report):
        # Text, not markup: a file's name may hold brackets.
        table.add_row(str(row), Text(file), Text(check, _STYLES[check.partition(" ")[0]]), Text(message), repair)
    if table.row_count:
        console.print(table)
    notes = Counter(finding.check for row in report.reports for finding in row.findings if finding.is_clean)
    if notes:
        counted = ", ".join(f"{check} {count}" for check, count in notes.items())
        console.print(f"notes: {counted}", highlight=False, markup=False)
    console.print(summary(report), highlight=False, markup=False)


def finding_rows(report: DoctorReport) -> Iterator[tuple[int, str, str, str, str]]:
    """(row, file, "severity check", message, repair or "") of every error and warning."""
    for row in report.reports:
        for finding in row.findings:
            if not finding.is_clean:
                check, message = f"{finding.severity} {finding.check}", finding.message.partition("\n")[0]
                yield row.index, finding.file, check, message, finding.repair or ""


def summary(report: DoctorReport) -> str:
    """`12 rows: 10 clean; 1 error, 2 warnings, 0 notes`"""
    counts = [f"{count} {severity}{'' if count == 1 else 's'}" for severity, count in report.counts.items()]
    clean = sum(row.is_clean for row in report.reports)
    return f"{len(report.reports)} rows: {clean} clean; {', '.join(counts)}"


def write_json(report: DoctorReport, path, extra: dict | None = None) -> Path:
    """Write the report (and what `extra` adds to it); the file appears whole or not at all."""
    return _write(path, json.dumps(report.as_dict() | (extra or {}), ensure_ascii=False, indent=1) + "\n")


def write_sheet(report: DoctorReport, path, num_clips: int = 200) -> Path:
    """Write one HTML file that opens without a server: stills of each clip over four backgrounds, and their alpha.

    Args:
        path: *.html.
        num_clips: rows with pictures at most, those with findings first; the rest is named in a line.
    """
    ordered = sorted(report.reports, key=lambda row: row.is_clean)
    data = {
        "dataset": str(report.dataset),
        "summary": summary(report),
        "left_out": max(len(ordered) - num_clips, 0),
        "rows": [_sheet_row(row) for row in ordered[:num_clips]],
    }
    template = (files("wan_alpha") / "assets" / "contact_sheet.html").read_text(encoding="utf-8")
    # "<" would let a caption end the script element that holds it.
    return _write(path, template.replace("__DATA__", json.dumps(data).replace("<", "\\u003c")))


def _sheet_row(row: RowReport) -> dict:
    stills = ["data:image/webp;base64," + base64.b64encode(still).decode() for still in row.thumbnails]
    return row.as_dict() | {"stills": stills, "clean": row.is_clean}


def _write(path, text: str) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    # A file name that is not valid text (surrogates) must not keep the report from being written.
    partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    os.replace(partial, path)
    return path
