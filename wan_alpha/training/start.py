"""What a run, and a dry run before it, refuses of its settings before anything is loaded."""

from wan_alpha.errors import ConfigError
from wan_alpha.training.optimizers import check_optimizer
from wan_alpha.training.trackers import choose_trackers
from wan_alpha.training.validation import check_best_is_known


def check_start(settings, validates, makes_previews=True, figures=None):
    """Refuse settings that have no effect or cannot be followed.

    Args:
        settings: TrainingSettings; validates, makes_previews: whether there is anything to validate, to show.
        figures: names that validation gives, where they are known beforehand.

    Returns:
        names of the trackers.

    Raises:
        ConfigError: which setting, and what to do.
    """
    if settings.preview_every is not None and not makes_previews:
        raise ConfigError("training.preview_every: nothing was given to make previews of; leave it out")
    for name in ("validate_every", "keep_best"):
        if getattr(settings, name) is not None and not validates:
            raise ConfigError(
                f"training.{name} has no effect without held-out clips to validate on: give them "
                "(data.validation_metadata of train-vae, validation_cache of train-dit), or leave it out"
            )
    if figures is not None:
        check_best_is_known(settings, figures)
    check_optimizer(settings)
    return choose_trackers(settings.trackers)
