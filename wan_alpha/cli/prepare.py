"""``wan-alpha prepare``: the dataset is made with a progress bar, and what became of each clip is printed."""

from wan_alpha.data.prepare import prepare_dataset
from wan_alpha.training.progress import StepProgress


def prepare(recipe):
    """Prepare a PrepareRecipe's folder; returns the PrepareReport."""
    with StepProgress("checking clips", total=None, unit="clips") as bar:
        report = prepare_dataset(
            recipe.source_dir, recipe.output_dir, skip_bad=recipe.skip_bad, link=recipe.link, workers=recipe.workers,
            progress=lambda done, total, name: bar.update(done, name, total),
        )  # fmt: skip
    for row in report.skipped:
        print(f"left out row {row.row} ({row.file}): {row.reason}")
    left_out = f", {len(report.skipped)} left out" if report.skipped else ""
    print(f"{report.metadata_path}: {report.num_rows} clips{left_out}, {report.num_without_prompt} without a prompt")
    return report
