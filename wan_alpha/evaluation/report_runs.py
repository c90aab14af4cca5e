"""What there is to show in a folder that some command wrote, or in a folder of transparent media."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from wan_alpha.data.clips import describe_clip
from wan_alpha.data.manifest import Row, parse_row
from wan_alpha.errors import DataError
from wan_alpha.evaluation.clip_pairs import find_clips
from wan_alpha.evaluation.generated_clips import SETTINGS_FILE, generated_row, made_from, read_settings
from wan_alpha.media.probe import probe
from wan_alpha.training.environment import ENVIRONMENT_FILE
from wan_alpha.training.run_folder import METRICS_FILE, RECIPE_FILE, read_metrics

REPORT_FILES = "report_files"
EVALUATION_FILE = "evaluation.json"
DEMO_FILE = "demo.json"
VALIDATION_SUFFIX = "_metrics.json"
# Large, and nothing in them is for the eye.
_PASSED_BY = {"checkpoints", "cache", REPORT_FILES}


@dataclass(frozen=True)
class ClipSource:
    """One clip: `name` is its path below its run, `subject` what clips of other runs are set beside it by, `video` a
    WebM of it that is at hand."""

    name: str
    subject: str
    row: Row
    video: Path | None = None
    settings: dict = field(default_factory=dict)
    reference: Row | None = None


@dataclass(frozen=True)
class Training:
    """A training run: `name` is its folder below the RUN, "" for the RUN itself."""

    name: str
    recipe: dict
    metrics: list[dict]
    environment: dict


@dataclass
class Run:
    """Everything that a RUN holds; `label` tells it from the report's other runs."""

    label: str
    path: Path
    clips: list[ClipSource] = field(default_factory=list)
    trainings: list[Training] = field(default_factory=list)
    evaluations: list[tuple[str, dict]] = field(default_factory=list)
    validations: list[tuple[str, dict]] = field(default_factory=list)
    demo_figures: list[dict] = field(default_factory=list)


def read_runs(paths):
    """Look through the folders (or media files) that a report is asked for.

    Returns:
        list of :class:`Run`, in the order given.

    Raises:
        DataError: a path that is not there, or holds nothing that a report can show; a file that is not what it claims.
    """
    paths = [Path(path) for path in paths]
    return [_read_run(path, label) for path, label in zip(paths, short_labels(paths), strict=True)]


def short_labels(paths):
    """The last parts of each path, as few as tell all of them apart; the same path twice is numbered."""
    parts = [Path(os.path.abspath(path)).parts for path in paths]
    if len(set(parts)) < len(parts):
        return [f"{part[-1]} ({number})" for number, part in enumerate(parts, start=1)]
    for count in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(part[-count:]) for part in parts]
        if len(set(labels)) == len(labels):
            break
    return labels


def _read_run(path, label):
    if not path.exists():
        raise DataError(f"{path}: no such folder or file; give the folder that a command wrote, or transparent media")
    run = Run(label, path)
    if path.is_file():
        run.clips = [_media_clip(clip) for clip in find_clips(path)]
        for clip in run.clips:
            describe_clip(clip.row)  # a file that was named has to have alpha
        return run
    _walk(run, path)
    if not (run.clips or run.trainings or run.evaluations or run.validations or run.demo_figures):
        run.clips = _plain_media(path)
    return run


def _walk(run, root):
    for place, folders, files in os.walk(root):
        folder = Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _PASSED_BY)
        if SETTINGS_FILE in files and (clip := _generated_clip(root, folder)) is not None:
            run.clips.append(clip)
            folders.clear()
            continue
        name = _below(root, folder)
        if METRICS_FILE in files:
            recipe, environment = (
                _read_json(folder / file) if file in files else {} for file in (RECIPE_FILE, ENVIRONMENT_FILE)
            )
            run.trainings.append(Training(name, recipe, read_metrics(folder), environment))
        if EVALUATION_FILE in files:
            evaluation = _read_json(folder / EVALUATION_FILE)
            run.evaluations.append((name, evaluation))
            run.clips += _evaluated_clips(folder, evaluation)
        if DEMO_FILE in files:
            run.demo_figures = _read_json(folder / DEMO_FILE).get("figures", [])
        for file in sorted(files):
            if file.endswith(VALIDATION_SUFFIX):
                stem = file.removesuffix(VALIDATION_SUFFIX)
                run.validations.append((f"{name}/{stem}".lstrip("/"), _read_json(folder / file)))
                run.clips += _validated_stills(root, folder, stem)


def _below(root, folder):
    name = folder.relative_to(root).as_posix()
    return "" if name == "." else name


def _read_json(path):
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def _generated_clip(root, folder):
    settings = read_settings(folder)
    row = generated_row(folder, settings)
    if row is None:
        return None
    video = folder / "video.webm"
    name = _below(root, folder) or folder.name
    prompt = made_from(settings)["prompt"] or name
    return ClipSource(name, prompt, row, video if video.is_file() else None, settings)


def _validated_stills(root, folder, stem):
    """Reconstructed frames beside what went in."""
    for still in sorted(folder.glob(f"{stem}_rgba_*.png")):
        frame = still.stem.rpartition("_")[2]
        truth = folder / f"{stem}_input_{frame}.png"
        name = still.relative_to(root).with_suffix("").as_posix()
        subject = f"{stem}, frame {int(frame)}"
        yield ClipSource(name, subject, Row(1, still), reference=Row(1, truth) if truth.is_file() else None)


def _evaluated_clips(folder, evaluation):
    """The pairs that an evaluation compared, where their files are still there."""
    sources = []
    for entry in evaluation.get("clips", []):
        pred, ref = (_evaluated_row(entry, key) for key in ("pred", "ref"))
        if pred is not None:
            name = str(entry.get("name", pred.foreground.stem))
            sources.append(ClipSource(name, name, pred, _own_video(pred), reference=ref))
    return sources


def _evaluated_row(entry, key):
    """The row of an evaluated file; None where it has moved."""
    file, matte = entry.get(key), entry.get(f"{key}_matte")
    if not file or not Path(file).exists():
        return None
    row = Row(1, Path(file), Path(matte)) if matte else parse_row(1, {"video": file})
    return row if _has_alpha(row) else None


def _plain_media(folder):
    """Clips of a folder that no command wrote; files without alpha, previews say, are passed by."""
    looked_for = f"no {METRICS_FILE}, no {EVALUATION_FILE}, no generated clips"
    try:
        clips = find_clips(folder)
    except DataError as error:
        raise DataError(f"{folder}: holds nothing that a report shows: {looked_for}; {error}") from error
    shown = [_media_clip(clip) for clip in clips if _has_alpha(clip.row)]
    if not shown:
        raise DataError(f"{folder}: holds nothing that a report shows: {looked_for}, and of its clips none has alpha")
    return shown


def _media_clip(clip):
    return ClipSource(clip.name, clip.row.prompt or clip.name, clip.row, _own_video(clip.row))


def _own_video(row):
    is_webm = row.matte is None and row.foreground.suffix.lower() == ".webm"
    return row.foreground if is_webm else None


def _has_alpha(row):
    return row.matte is not None or probe(row.foreground).has_alpha
