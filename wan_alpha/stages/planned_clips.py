"""The clips of a plan: those that are there, or the size that they would have."""

from collections import Counter

from safetensors import safe_open

from wan_alpha.data.buckets import Bucket
from wan_alpha.data.cached_samples import LatentCacheDataset
from wan_alpha.data.latent_cache import LatentCache, item_path
from wan_alpha.errors import ConfigError, DataError
from wan_alpha.models.base_vae import vae_kind_of_latents
from wan_alpha.stages.cache_fit import check_fits_dit
from wan_alpha.stages.clips import plan_recipe_clips
from wan_alpha.stages.planned_models import known_model_of
from wan_alpha.training.config import list_presets, load_recipe
from wan_alpha.training.recipes import CacheRecipe

DEFAULT_CONTEXT_LENGTH = 512


def planned_clips(data, seed, assumptions):
    """The ClipPlan of a recipe's ClipData; None where its manifests are not there and that may be.

    Raises:
        DataError: as ``plan_recipe_clips``.
    """
    missing = [str(source.manifest) for source in data.sources if not source.manifest.is_file()]
    if missing and assumptions.are_allowed:
        assumptions.say(f"{missing[0]} is not there: all clips have the recipe's size")
        return None
    return plan_recipe_clips(data, seed, show=False)


def largest_bucket(buckets):
    """The bucket of most pixels, frames x height x width."""
    return max(buckets, key=lambda bucket: bucket.frames * bucket.height * bucket.width)


def latent_shape(kind, bucket):
    """Shape of the latents of clips of a bucket, (C, t, h, w); kind: a VAEKind."""
    stride = kind.spatial_stride
    return kind.latent_channels, (bucket.frames + 3) // 4, bucket.height // stride, bucket.width // stride


def bucket_of_latents(shape):
    """The size of clips whose latents have a shape, (C, t, h, w)."""
    stride = vae_kind_of_latents(shape[0]).spatial_stride
    return Bucket(4 * shape[1] - 3, shape[2] * stride, shape[3] * stride)


def clip_table(plan):
    """Title -> text of a ClipPlan: clips by kind and by size, and how many were left out."""
    kinds = {f"{kind} clips": str(count) for kind, count in sorted(Counter(row.kind for row in plan.rows).items())}
    sizes = {f"brought to {size}": f"{count} clips" for size, count in sorted(Counter(map(str, plan.shapes)).items())}
    return kinds | sizes | {"left out": f"{len(plan.left_out)} clips"}


class PlannedCache:
    """A latent cache that is there, or what stands for one.

    Args:
        recipe: a TrainDiTRecipe; channels: of the latents that its DiT takes; text_dim: of the contexts.

    Attributes:
        shapes: Counter of latents' shapes (C, t, h, w), its counts zero where there is no cache.
        prompts: its captions, None where there is no cache.
        num_samples: of an epoch, None if not known; context_length: tokens; data: rows of text; summary: of the run's.

    Raises:
        DataError: no whole cache there, and nothing may be assumed; or another model's.
        ConfigError: the size to assume is off the grid of the DiT's tokens.
    """

    def __init__(self, recipe, channels, text_dim, assumptions):
        self.summary, self.prompts = "", None
        try:
            cache = LatentCache.open(recipe.cache)
            cache.verify()
        except DataError:
            if not assumptions.are_allowed:
                raise
            kind = vae_kind_of_latents(channels)
            bucket = _size_of_missing_cache(recipe, assumptions)
            check_tokens(kind, bucket)
            self.shapes, self.context_length = Counter({latent_shape(kind, bucket): 0}), DEFAULT_CONTEXT_LENGTH
            self.num_samples, self.data = assumptions.num_samples, {"clips": f"{bucket}, as assumed"}
            return
        check_fits_dit(cache, channels, text_dim)
        self.prompts = cache.prompts()
        self.shapes = Counter(item_shape(cache.folder, key) for key in cache.keys)
        dataset = LatentCacheDataset(cache, recipe.seed, recipe.repeat)
        self.num_samples, self.context_length = len(dataset.epoch_samples(0)), cache.index.context_length
        self.summary = dataset.summary()
        self.data = {f"latents of {' x '.join(map(str, shape))}": f"{count} clips"
                     for shape, count in sorted(self.shapes.items())}  # fmt: skip
        self.data["samples of an epoch"] = str(self.num_samples)
        if assumptions.bucket is not None:
            kind = vae_kind_of_latents(channels)
            check_tokens(kind, assumptions.bucket)
            self.shapes = Counter({latent_shape(kind, assumptions.bucket): 0})
            self.data["planned for"] = f"clips of {assumptions.bucket}"

    @property
    def largest(self):
        """The shape of most cells."""
        return max(self.shapes, key=lambda shape: shape[1] * shape[2] * shape[3])


def item_shape(folder, key):
    """Shape of a cached clip's latents, (C, t, h, w), from its file's header."""
    with safe_open(item_path(folder, key), framework="pt") as file:
        return tuple(file.get_slice("latents").get_shape())


def _size_of_missing_cache(recipe, assumptions):
    if assumptions.bucket is not None:
        return assumptions.bucket
    for name in list_presets(CacheRecipe):
        preset = _cache_preset(name)
        if preset is not None and preset.output_dir == recipe.cache:
            bucket = largest_bucket(preset.data.shapes)
            assumptions.say(f"{recipe.cache} is not there: clips have the size of the preset that makes it, {name}: "
                            f"{bucket}")  # fmt: skip
            return bucket
    known = known_model_of(recipe.model.wan, assumptions)
    bucket = Bucket(known.num_frames, *known.sizes[0])
    assumptions.say(f"{recipe.cache} is not there: clips have the size that {known.name} is made for, {bucket}")
    return bucket


def _cache_preset(name):
    try:
        return load_recipe(CacheRecipe, name)
    except ConfigError:  # of another command, whose options are all known to this one too
        return None


def check_tokens(kind, bucket):
    """Raises:
    ConfigError: clips of a bucket whose latents the DiT cannot cut into its patches; kind: a VAEKind.
    """
    from wan_alpha.models.base_vae import check_token_grid

    check_token_grid(kind, {f"{bucket}: height": bucket.height, f"{bucket}: width": bucket.width})
