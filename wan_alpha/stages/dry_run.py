"""``--dry-run`` of the stages and the cache: the recipe, the data, the steps, what it will take. Nothing is written.

The figures are those of ``wan-alpha plan``; what is missing is an error here, as it would be for the run, but for the
files of a known model that the run would download: their sizes are known.
"""

from wan_alpha.stages.plan_cache import plan_cache
from wan_alpha.stages.plan_dit import plan_dit
from wan_alpha.stages.plan_vae import plan_vae
from wan_alpha.stages.plans import Assumptions, print_assumed, print_plan, target_of_run
from wan_alpha.training.foresight import print_recipe, print_tables


def foresee_vae(recipe):
    """Print what ``train_vae`` of a recipe would do.

    Raises:
        ConfigError, DataError, CheckpointError: what the run would refuse at its start, as far as names and sizes tell.
    """
    _foresee(recipe, plan_vae, recipe.training.device)


def foresee_dit(recipe):
    """Print what ``train_dit`` of a recipe would do; raises as :func:`foresee_vae`."""
    _foresee(recipe, plan_dit, recipe.training.device)


def foresee_cache(recipe):
    """Print what ``build_cache`` of a recipe would do; raises as :func:`foresee_vae`."""
    _foresee(recipe, plan_cache, recipe.device)


def _foresee(recipe, make_plan, device):
    plan = make_plan(recipe, target_of_run(device), Assumptions())
    print_recipe(recipe)
    print_plan(plan)
    print_assumed(plan)
    print_tables({"dry run": {"memory": plan.verdict(), "disk": "nothing was written"}})
