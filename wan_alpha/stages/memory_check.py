"""Before anything is loaded: a run whose predicted peak is above all the memory of its device is refused."""

import math

from wan_alpha.data.buckets import parse_bucket
from wan_alpha.errors import CheckpointError, ConfigError, DataError
from wan_alpha.stages.plan_changes import advise
from wan_alpha.stages.plans import Assumptions, target_of_run
from wan_alpha.training.foresight import show_gib
from wan_alpha.weights.wan_layout import DITS, find_wan_files, infer_dit_sizes, weight_shapes

# Generous bounds, to spare small runs the seconds that a plan takes: bytes a pixel that the widest VAE's training
# keeps, and its encoding holds at most; bytes a token and channel of a block.
_PER_PIXEL, _PER_ENCODED_PIXEL, _PER_TOKEN = 100_000, 10_000, 400
_SMALL = 0.5  # of the device


def check_memory(recipe, make_plan, estimate):
    """Refuse a recipe that its device cannot hold.

    Args:
        recipe: of train-vae, train-dit or cache; make_plan: plan_vae, plan_dit or plan_cache.
        estimate: bytes that the run surely does not exceed; a small one needs no plan.

    Raises:
        ConfigError: the peak is above the device's memory; with what to change, and how to start all the same.
    """
    settings = getattr(recipe, "training", recipe)
    option = "ignore_memory_plan" if settings is recipe else "training.ignore_memory_plan"
    target = target_of_run(settings.device)
    if settings.ignore_memory_plan or target.memory is None or estimate <= _SMALL * target.memory:
        return

    steps = {}

    def plan(recipe, target, bucket):
        return make_plan(recipe, target, Assumptions(bucket=bucket, steps=steps))

    try:
        made = plan(recipe, target, None)
    except (DataError, CheckpointError):  # said by the run itself, with more to go by
        return
    if made.peak <= target.memory:
        return
    advice = advise(recipe, target, made.bucket, plan)
    lines = "\n  ".join([made.verdict(), *advice.lines()])
    raise ConfigError(
        f"{lines}\n  {option} = true starts all the same (peak of {show_gib(made.peak)} predicted from shapes; "
        "`wan-alpha plan` has the details)"
    )


def vae_estimate(recipe):
    """Bytes that training the RGBA VAE surely does not exceed."""
    pixels = max(math.prod((bucket.frames, *bucket.size)) for bucket in recipe.data.shapes)
    return _PER_PIXEL * pixels * recipe.training.batch_size + 20 * _file_size(recipe.model.base_vae)


def cache_estimate(recipe):
    """Bytes that building the latent cache surely does not exceed.

    Raises:
        CheckpointError: no Wan weights there.
    """
    text = sum(map(_file_size, find_wan_files(recipe.model.wan, parts=("text_encoder",)).text_encoder))
    pixels = max(math.prod((bucket.frames, *bucket.size)) for bucket in recipe.data.shapes)
    # The text encoder has gone when the clips come, one at a time.
    return max(3 * text, 20 * _file_size(recipe.model.base_vae) + _PER_ENCODED_PIXEL * pixels)


def dit_estimate(recipe, cache):
    """Bytes that training the DiT surely does not exceed; cache: a LatentCache.

    Raises:
        CheckpointError: no Wan DiT there.
    """
    parts = (*DITS, *([] if recipe.textual_inversion.placeholder is None else ["text_encoder"]))
    files = find_wan_files(recipe.model.wan if recipe.model.dit is None else [str(recipe.model.dit)], parts=parts)
    sizes = infer_dit_sizes(weight_shapes(files.dit), files.dit)
    weights = sum(_file_size(path) for part in parts for path in getattr(files, part))
    made = cache.index.preprocessing
    if not (made.get("buckets") or {"num_frames", "height", "width"} <= made.keys()):
        return math.inf  # a cache that does not say its clips' sizes: the plan reads them from the items
    texts = made.get("buckets") or [f"{made['num_frames']}x{made['height']}x{made['width']}"]
    cells = max(math.prod((bucket.frames + 3, *bucket.size)) for bucket in map(parse_bucket, texts)) // 1024
    tokens = cells * recipe.training.batch_size
    return _PER_TOKEN * sizes["dim"] * tokens * (sizes["num_layers"] + 2) + 20 * weights


def _file_size(path):
    """Bytes of a file; of a folder, a gigabyte; of what is not there, none: the run will say so."""
    if path.is_file():
        return path.stat().st_size
    return 2**30 if path.is_dir() else 0
