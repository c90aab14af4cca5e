"""The clips of a recipe, planned with a progress bar where files must be looked at."""

from wan_alpha.data.clip_plan import ClipPlan, plan_clips
from wan_alpha.training.progress import StepProgress


def plan_recipe_clips(data, seed: int, show: bool = True) -> ClipPlan:
    """The ClipPlan of a recipe's ClipData.

    Args:
        seed: of the recipe; show: a bar, while files are looked at.
    """
    with StepProgress("looking at clips", total=None, enabled=show, unit="clips") as bar:
        return plan_clips(
            data.sources, data.shapes, data.ping_pong, data.target_fps, seed,
            progress=lambda done, total: bar.update(done, total=total),
        )  # fmt: skip
