"""``wan-alpha report``: runs side by side on a page that opens from disk.

<out>/
├── index.html        open this
└── report_files/     what it shows: styles, scripts, one folder a clip
"""

import html
import json
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path

from wan_alpha.data.clips import describe_clip
from wan_alpha.errors import ConfigError, DataError
from wan_alpha.evaluation.clip_pairs import NamedClip, find_clips, find_reference
from wan_alpha.evaluation.generated_clips import MASTER, made_from
from wan_alpha.evaluation.report_clips import check_reference, transparent_video, write_clip, write_handover
from wan_alpha.evaluation.report_curves import charts
from wan_alpha.evaluation.report_evaluation import evaluation_tables
from wan_alpha.evaluation.report_figures import clip_table, demo_table, validation_table
from wan_alpha.evaluation.report_groups import group_clips
from wan_alpha.evaluation.report_runs import REPORT_FILES, read_runs
from wan_alpha.evaluation.report_settings import settings_tables
from wan_alpha.training.progress import StepProgress

PAGE_FILE = "index.html"
# In the title of every page that this package wrote, so that nobody else's page is written over.
OWN_TITLE = "<title>wan-alpha"


@dataclass(frozen=True)
class Report:
    """Where the page is, and how many clips it shows, references among them."""

    page: Path
    num_clips: int


def report(recipe):
    """Write a ReportRecipe's page and say where it is; see :func:`write_report`."""
    written = write_report(
        recipe.runs, recipe.output_dir, title=recipe.title, reference=recipe.reference, max_clips=recipe.max_clips,
        max_frames=recipe.max_frames,
    )  # fmt: skip
    print(f"{written.page}: {written.num_clips} clips; open it in a browser")
    return written


def write_report(paths, out, title="report", summary="", reference=None, max_clips=None, max_frames=None):
    """Write the page; an earlier one in ``out`` is replaced as a whole.

    Args:
        paths: folders that commands wrote, or transparent media; out: folder of the page.
        title, summary: of the page; reference: true clip, or a folder of them by the clips' names, or None.
        max_clips: clips shown of each run; max_frames: frames of each clip, from the start; None for all.

    Returns:
        a :class:`Report`.

    Raises:
        ConfigError: ``out`` holds a page of somebody else's.
        DataError: a path without anything to show, a clip that cannot be read, a reference that does not fit.
    """
    out = Path(out)
    check_own_page(out)
    runs = read_runs(paths)
    reference = None if reference is None else Path(reference)
    truths = find_clips(reference) if reference is not None else []
    sources = [
        (index, _with_reference(source, truths, reference))
        for index, run in enumerate(runs)
        for source in run.clips[:max_clips]
    ]
    if reference is not None and not any(source.reference for _, source in sources):
        raise DataError(f"reference {reference}: no clip there has the name of a clip in {', '.join(map(str, paths))}")
    for _, source in sources:
        if source.reference is not None:
            check_reference(source, source.reference)
    out.mkdir(parents=True, exist_ok=True)
    # Made beside its place and moved there whole: an interrupted report leaves the earlier one as it was.
    with tempfile.TemporaryDirectory(dir=out, prefix=f".{REPORT_FILES}.") as scratch:
        made = Path(scratch) / REPORT_FILES
        _copy_assets(made)
        shown, references = _write_clips(sources, made / "clips", max_frames)
        data = _page_data(runs, shown, references, summary)
        (made / "data.js").write_text(f"wanReport.data = {json.dumps(data)};\n", encoding="ascii")
        shutil.rmtree(out / REPORT_FILES, ignore_errors=True)
        os.replace(made, out / REPORT_FILES)
    template = (files("wan_alpha") / "assets" / "report" / PAGE_FILE).read_text(encoding="utf-8")
    (out / PAGE_FILE).write_text(template.replace("__TITLE__", html.escape(f"wan-alpha {title}")), encoding="utf-8")
    return Report(out / PAGE_FILE, len(shown) + len(references))


def check_own_page(out):
    """Refuse a folder whose index.html is somebody else's.

    Raises:
        ConfigError: it is.
    """
    if out.is_file():
        raise ConfigError(f"{out}: is a file; a report is a folder")
    page = out / PAGE_FILE
    if page.is_file() and OWN_TITLE not in page.read_text(encoding="utf-8", errors="replace")[:2000]:
        raise ConfigError(f"{page} is not a page of wan-alpha's and is kept; choose another folder for the report")


def _with_reference(source, truths, given):
    """The source with its reference: the one that `find_reference` finds, or the one clip that was given for all."""
    if source.reference is not None or not truths:
        return source
    for_all = truths[0].row.foreground in (given, given / MASTER)
    clip = NamedClip(source.name, source.row, **made_from(source.settings))
    found = truths[0] if for_all else find_reference(clip, truths)
    return source if found is None else replace(source, reference=found.row)


def _copy_assets(target):
    target.mkdir()
    for asset in sorted((files("wan_alpha") / "assets" / "report").iterdir(), key=lambda asset: asset.name):
        if asset.name != PAGE_FILE:
            (target / asset.name).write_text(asset.read_text(encoding="utf-8"), encoding="utf-8")


def _write_clips(sources, folder, max_frames):
    """Returns the clips as (run index, ClipSource, PageClip), and references: their files -> (ClipSource, PageClip)."""
    folder.mkdir()
    (folder / "probe").mkdir()
    write_handover(folder / "probe" / "video.js", "probe/video", transparent_video(folder))
    wanted = {}  # a reference that several clips share is written once
    for _, source in sources:
        if source.reference is not None:
            wanted.setdefault(source.reference.files, replace(source, row=source.reference, video=None, reference=None))
    to_write = [(f"r{number}", source) for number, source in enumerate(wanted.values())]
    to_write += [(f"c{number}", source) for number, (_, source) in enumerate(sources)]
    written, done = {}, 0
    with StepProgress("writing clips", total=None, unit="frames") as bar:
        total = sum(describe_clip(source.row).num_frames for _, source in to_write) if max_frames is None else None
        for key, source in to_write:
            progress = partial(_show_progress, bar, done, source.name, total)
            written[key] = write_clip(source, key, folder, max_frames, progress)
            done += written[key].num_frames
    shown = [(index, source, written[f"c{number}"]) for number, (index, source) in enumerate(sources)]
    references = {files: (wanted[files], written[f"r{number}"]) for number, files in enumerate(wanted)}
    return shown, references


def _show_progress(bar, before, name, total, frames):
    bar.update(before + frames, name, total)


def _page_data(runs, shown, references, summary):
    num_left_out = sum(len(run.clips) for run in runs) - len(shown)
    left_out = f"{num_left_out} more clips are left out." if num_left_out else ""
    tables = [demo_table(runs), *evaluation_tables(runs), validation_table(runs), clip_table(runs, shown)]
    return {
        "summary": " ".join(filter(None, (summary, left_out))),
        "runs": [run.label for run in runs],
        "groups": group_clips(runs, shown, references),
        "tables": [table for table in tables if table is not None],
        "charts": charts(runs),
        "settings": settings_tables(runs, shown),
    }
