"""Which clips stand side by side, and by what they are told apart."""

from dataclasses import asdict
from pathlib import Path

from wan_alpha.evaluation.report_settings import flatten

# What differs between clips without making them differ, or is said elsewhere.
_NOT_SAID = {"output_dir", "prompt", "prompts_file", "device"}
_MAX_SAID = 3
REFERENCE_RUN = -1


def group_clips(runs, shown, references):
    """Clips of one subject side by side, each after its reference.

    Args:
        runs: list of Run; shown: list of (run index, ClipSource, PageClip); references: a reference's
            files -> (ClipSource, PageClip).

    Returns:
        list of dicts: title; clips, each with the PageClip's values, a label, its run's index (-1: a reference) and
        the key of its reference or None.
    """
    subjects = {}
    for entry in shown:
        subjects.setdefault(entry[1].subject, []).append(entry)
    groups = []
    for subject, entries in subjects.items():
        clips, differing = [], _differing_options([source for _, source, _ in entries])
        for files in dict.fromkeys(source.reference.files for _, source, _ in entries if source.reference is not None):
            clips.append(_entry(references[files][1], "reference", REFERENCE_RUN, None))
        for run_index, source, clip in entries:
            key = None if source.reference is None else references[source.reference.files][1].key
            label = _label(runs, run_index, source, differing, alone=len(entries) == 1)
            clips.append(_entry(clip, label, run_index, key))
        groups.append({"title": subject, "clips": clips})
    return groups


def _entry(clip, label, run_index, reference):
    return {**asdict(clip), "label": label, "run": run_index, "reference": reference}


def _differing_options(sources):
    options = [dict(flatten(source.settings.get("recipe", {}))) for source in sources]
    names = dict.fromkeys(name for option in options for name in option if name not in _NOT_SAID)
    return [name for name in names if len({str(option.get(name)) for option in options}) > 1][:_MAX_SAID]


def _label(runs, run_index, source, differing, alone):
    said = [runs[run_index].label] if len(runs) > 1 else []
    recipe = dict(flatten(source.settings.get("recipe", {})))
    for name in differing:
        value = recipe.get(name)
        said.append(f"{name.rpartition('.')[2]} {_short(value)}")
    if alone and "seed" in recipe:
        said.append(f"seed {recipe['seed']}")
    return ", ".join(said) or source.name


def _short(value):
    """A weight file is told by its last two parts; its whole path would fill the caption."""
    text = str(value)
    return "/".join(Path(text).parts[-2:]) if "/" in text else text
