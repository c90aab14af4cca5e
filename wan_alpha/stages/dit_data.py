"""The latent caches of a stage 2 run, and what is asked of them before a model is loaded."""

from pathlib import Path

from wan_alpha.data.cached_samples import LatentCacheDataset
from wan_alpha.data.digests import Digests
from wan_alpha.data.latent_cache import LatentCache
from wan_alpha.errors import DataError
from wan_alpha.stages.placeholders import check_placeholder
from wan_alpha.stages.sampled_previews import check_previews


def open_data(recipe):
    """(LatentCache, LatentCacheDataset of held-out clips or None) of a recipe: before a model is loaded, and what a
    word and the previews need with them.

    Raises:
        DataError, ConfigError, CheckpointError: see :func:`train_dit`.
    """
    cache, validation = open_fresh_cache(recipe.cache), None
    if recipe.validation_cache is not None:
        validation = LatentCacheDataset(open_fresh_cache(recipe.validation_cache))
        check_same_encoders(cache, validation.cache)
    if recipe.textual_inversion.placeholder is not None and not recipe.dry_run:  # a plan looks at what is here
        check_placeholder(recipe.model.wan, recipe.textual_inversion, cache.prompts())
    if recipe.training.preview_every is not None:
        check_previews(recipe.preview, previewed_cache(cache, validation))
    return cache, validation


def previewed_cache(cache, validation):
    """The cache whose captions are shown: that of held-out clips, if there is one."""
    return cache if validation is None else validation.cache


def open_fresh_cache(folder) -> LatentCache:
    """Open a cache, every item whole and made by the VAE whose files it names, as they are today.

    Raises:
        DataError: incomplete or damaged, or stale because those files hold another encoder or merge block by now.
    """
    cache = LatentCache.open(folder)
    cache.verify()
    files, digests = cache.index.vae_files, Digests(folder)
    changed = [file["path"] for file in files.values() if _has_changed(file, digests)]
    # A cache that was moved to another machine names files that are not there: nothing can be compared.
    if changed and all(Path(file["path"]).is_file() for file in files.values()):
        from wan_alpha.models.rgba_vae import RGBAlphaVAE

        vae = RGBAlphaVAE.from_pretrained(**{name: file["path"] for name, file in files.items()})
        if vae.fingerprint() != cache.index.vae_fingerprint:
            raise DataError(
                f"{folder}: the cache is stale: {', '.join(changed)} changed since it was built, so its latents are "
                "not those of today's RGBA VAE; run `wan-alpha cache` again with the same output_dir"
            )
    return cache


def _has_changed(file, digests):
    return Path(file["path"]).is_file() and digests.file(file["path"]) != file["sha256"]


def check_same_encoders(cache: LatentCache, validation: LatentCache) -> None:
    """Raises:
    DataError: the two caches were made by different VAEs or text encoders.
    """
    for name, what in (("vae_fingerprint", "RGBA VAE"), ("text_fingerprint", "text encoder")):
        if getattr(cache.index, name) != getattr(validation.index, name):
            raise DataError(f"{validation.folder}: made by another {what} than {cache.folder}; build both caches anew")
