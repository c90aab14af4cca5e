"""Whether what is to be trained as an expert is one, and has timesteps to be trained on: before anything is loaded."""

import math

from wan_alpha.data.latent_cache import item_shape
from wan_alpha.errors import ConfigError
from wan_alpha.models.load import find_boundary
from wan_alpha.stages.experts import BOTH
from wan_alpha.stages.flow_objective import training_scheduler
from wan_alpha.stages.timesteps import expert_ids, shift_for
from wan_alpha.weights.adapters import EXPERTS
from wan_alpha.weights.registry import known_models
from wan_alpha.weights.wan_layout import DITS, find_wan_files, infer_dit_sizes, weight_shapes

FEWEST_TIMESTEPS = 4  # as many as validation asks at


def check_expert_of_files(recipe, cache):
    """Refuse a TrainDiTRecipe's ``model.expert`` that its files or the schedule on its LatentCache leave nothing to.

    Raises:
        ConfigError: as :func:`check_is_expert` and :func:`check_boundary`.
        CheckpointError: no Wan DiT there.
    """
    model = recipe.model
    if model.expert is None:
        return
    source = model.wan if model.dit is None else [str(model.dit)]
    files = find_wan_files(source, parts=DITS)
    check_is_expert(model, is_expert(files, source))
    boundary = find_boundary(files) if model.boundary is None else model.boundary
    check_boundary(recipe, boundary, {item_shape(cache.folder, key) for key in cache.keys})


def is_expert(files, source):
    """Whether a model's DiT is an expert of two, or may be one that stands alone: by its folder, else by its sizes.

    Args:
        files: WanFiles with a DiT; source: that they were found by.
    """
    if files.dit_low_noise or files.boundary is not None:
        return True
    text = str(source).lower()
    named = [model for name, model in known_models().items() if name != "tiny" and name.lower() in text]
    if named:
        return any(model.num_experts == 2 for model in named)
    sizes = infer_dit_sizes(weight_shapes(files.dit), files.dit)
    return any(
        model.num_experts == 2 and all(model.dit[name] == sizes[name] for name in ("dim", "in_dim", "num_layers"))
        for model in known_models().values()
    )


def check_is_expert(model, is_one):
    """Raises:
    ConfigError: model.expert of a TrainDiTModel for what is none, unless its boundary says that it is one.
    """
    if model.expert in EXPERTS and model.boundary is None and not is_one:
        raise ConfigError(
            f"model.expert = {model.expert}: there is one DiT in {model.dit or model.wan}, for all timesteps; leave "
            "model.expert out, or give model.boundary too if it is an expert all the same"
        )


def check_boundary(recipe, boundary, grids):
    """Refuse a boundary that leaves an expert nothing to learn.

    Args:
        recipe: a TrainDiTRecipe with model.expert; boundary: in (0, 1); grids: (t, h, w) of latents, on whose sizes the
            schedule may depend.

    Raises:
        ConfigError: it names the expert, and how many of the timesteps are left.
    """
    experts = EXPERTS if recipe.model.expert == BOTH else (recipe.model.expert,)
    for shift in sorted({shift_for(math.prod(grid) // 4, recipe.objective) for grid in grids}):
        timesteps = training_scheduler(shift).timesteps
        for expert in experts:
            left = len(expert_ids(timesteps, boundary, expert))
            if left < FEWEST_TIMESTEPS:
                raise ConfigError(
                    f"model.boundary = {boundary}: {left or 'no'} timestep(s) of the schedule's {len(timesteps)} "
                    f"(shift {shift:.4g}) are left to the {expert} expert; it needs {FEWEST_TIMESTEPS}: give a "
                    f"{'lower' if expert == EXPERTS[0] else 'higher'} one (the A14B's own is 0.875)"
                )
