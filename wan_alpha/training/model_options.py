"""A recipe's options against the model that it names, before anything is loaded."""

import sys

from wan_alpha.models.devices import is_first_process
from wan_alpha.training.config import option_values
from wan_alpha.weights.combinations import check_combinations
from wan_alpha.weights.model_facts import model_facts


def check_model_options(recipe, source=None):
    """Refuse options that do not go with the recipe's model, and tell of those that do not go well.

    Args:
        recipe: with a table ``model`` that has ``wan``; of a dry run nothing is downloaded.
        source: the model that is meant, None for ``model.wan``.

    Raises:
        ConfigError: a pair that the registry refuses.
        CheckpointError: files that cannot be read, that hold something else, or that do not go with the model.
    """
    base_vae = getattr(recipe.model, "base_vae", None)
    is_dry = getattr(recipe, "dry_run", False)
    facts = model_facts(recipe.model.wan if source is None else source, base_vae, is_dry)
    for reason in check_combinations(option_values(recipe), facts):
        if is_first_process():
            print(f"note: {reason}", file=sys.stderr)
