"""``wan-alpha doctor``: every row checked with a progress bar, a table, doctor.json, a contact sheet, and repairs."""

import json
from dataclasses import dataclass

from wan_alpha.data.doctor.checks import CHECK_NAMES
from wan_alpha.data.doctor.repair import check_out_dir, repair_dataset
from wan_alpha.data.doctor.report import JSON_FILE, SHEET_FILE, print_table, write_json, write_sheet
from wan_alpha.data.doctor.run import DoctorReport, examine_dataset, read_dataset
from wan_alpha.errors import ConfigError
from wan_alpha.media.limits import MediaLimits
from wan_alpha.training.progress import StepProgress


@dataclass(frozen=True)
class DoctorResult:
    """`passed`: the dataset is clean; with --fix, the repaired one is, and no row was left out but for duplicates."""

    report: DoctorReport
    passed: bool


def doctor(recipe):
    """Examine a DoctorRecipe's dataset; returns a DoctorResult.

    Raises:
        ConfigError: `ignore` names a check that does not exist, or `fix` is no new folder.
        DataError: the dataset cannot be read at all, or nothing of it can be kept.
    """
    if unknown := [name for name in recipe.ignore if name not in CHECK_NAMES]:
        raise ConfigError(f"ignore = {unknown[0]}: no such check; checks: {', '.join(CHECK_NAMES)}")
    dataset = read_dataset(recipe.dataset)
    if recipe.fix is not None:
        check_out_dir(recipe.fix, dataset)  # now, not after hours of looking at clips
    report = _examine(recipe, dataset, "checking clips", recipe.sheet_clips)
    fixed, left = None, None
    if recipe.fix is not None:
        with StepProgress("repairing clips", total=None, unit="clips") as bar:
            fixed = repair_dataset(
                dataset, report, recipe.fix, recipe.workers, lambda done, total, name: bar.update(done, name, total)
            )
        left = _examine(recipe, read_dataset(fixed.metadata_path), "checking repaired clips", 0)
    extra = {} if fixed is None else {"fix": fixed.as_dict() | {"report": left.as_dict()}}
    written = write_json(report, recipe.output_dir / JSON_FILE, extra)
    sheet = write_sheet(report, recipe.output_dir / SHEET_FILE, recipe.sheet_clips)
    if recipe.print_json:
        print(json.dumps(report.as_dict() | extra, indent=1))
    else:
        print_table(report)
        print(f"{written}\n{sheet}")
        if fixed is not None:
            _print_repairs(fixed, left)
    if fixed is None:
        return DoctorResult(report, report.is_clean)
    lost = [row for row in fixed.left_out if not row.is_duplicate]
    return DoctorResult(report, left.is_clean and not lost)


def _examine(recipe, dataset, description, num_pictured):
    with StepProgress(description, total=len(dataset.rows), unit="clips") as bar:
        return examine_dataset(
            dataset, limits=MediaLimits(**recipe.limits.model_dump()), ignore=recipe.ignore, workers=recipe.workers,
            num_pictured=num_pictured, progress=lambda done, total, name: bar.update(done, name),
        )  # fmt: skip


def _print_repairs(fixed, left):
    for row, names in fixed.repaired.items():
        print(f"repaired row {row}: {', '.join(names)}")
    for row in fixed.left_out:
        print(f"left out row {row.row} ({row.file.name}): {row.reason}")
    print(f"{fixed.metadata_path}:")
    print_table(left)
