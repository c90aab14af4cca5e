"""``wan-alpha prepare``: the dataset is made with a progress bar, and what became of each clip is printed."""

from wan_alpha.data.prepare import prepare_dataset
from wan_alpha.data.prepare_row import PrepareSettings
from wan_alpha.media.limits import MediaLimits
from wan_alpha.training.progress import StepProgress


def prepare(recipe):
    """Prepare a PrepareRecipe's folder; returns the PrepareReport."""
    settings = PrepareSettings(
        recipe.source_state, recipe.packing, recipe.split_scenes, MediaLimits(**recipe.limits.model_dump())
    )
    with StepProgress("checking clips", total=None, unit="clips") as bar:
        report = prepare_dataset(
            recipe.source_dir, recipe.output_dir, skip_bad=recipe.skip_bad, link=recipe.link, workers=recipe.workers,
            progress=lambda done, total, name: bar.update(done, name, total), settings=settings,
            caption_column=recipe.caption_column, drop_near_duplicates=recipe.drop_near_duplicates,
        )  # fmt: skip
    for warning in report.warnings:
        print(f"warning: {warning}")
    for row in report.skipped:
        print(f"left out row {row.row} ({row.file}): {row.reason}")
    counts = [f"{report.num_rows} clips"]
    counts += [f"{len(report.skipped)} left out"] if report.skipped else []
    counts += [f"{report.num_kept} kept from an earlier run"] if report.num_kept else []
    print(f"{report.metadata_path}: {', '.join(counts)}, {report.num_without_prompt} without a prompt")
    return report
