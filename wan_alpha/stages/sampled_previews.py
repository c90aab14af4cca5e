"""Previews of stage 2: the same captions and noise every time, sampled in few steps and decoded into RGBA."""

import torch

from wan_alpha.alpha.ranges import rgba_frames
from wan_alpha.data.latent_cache import pad_context
from wan_alpha.data.sampling import derive_seed
from wan_alpha.errors import ConfigError
from wan_alpha.models.rgba_vae import RGBAlphaVAE
from wan_alpha.stages.planned_models import planned_vae
from wan_alpha.stages.plans import Assumptions
from wan_alpha.training.progress import StepProgress

NUM_PREVIEWS = 2


class SampledPreviews:
    """Makes the clips when it is called with the training module.

    Args:
        settings: PreviewSettings; cache: a LatentCache whose captions, contexts and sizes they take; seed: of their
            noise.

    Raises:
        ConfigError: a prompt that is no caption of the cache.
        CheckpointError: the RGBA VAE's weights are not what they claim, or make other latents than the cache holds.
    """

    def __init__(self, settings, cache, seed):
        self.settings, self.seed, self.cache = settings, seed, cache
        self._items = _items_of(cache, settings.prompts)
        self._vae = RGBAlphaVAE.from_pretrained(settings.base_vae, settings.rgba_weights, settings.decoder_lora)
        self._vae.chunk_size = 1
        _check_channels(self._vae, self._items, cache)

    @torch.no_grad()
    def __call__(self, module):
        """Name -> straight RGBA frames, (T, H, W, 4) uint8; with the weights in shards all processes call it."""
        device, shown = next(module.parameters()).device, {}
        progress = StepProgress("previewing", len(self._items), enabled=False, unit="clips")  # the run's bar stays
        length = self.cache.index.context_length
        for number, item in enumerate(self._items):
            if module.captions is None:
                context = pad_context(item.context.float(), length)[None].to(device)
            else:  # the cache knows the word that is learned as its letters only
                context = module.captions([item.prompt])
            seed = derive_seed(self.seed, number, "preview")
            latents = module.sample(context, (1, *item.latents.shape), self.settings.num_steps, seed)
            vae = self._vae.to(device)  # on the device only while it decodes
            rgb, alpha = vae.decode(latents)
            shown[f"prompt_{number}"] = rgba_frames(rgb.float(), alpha.float())
            self._vae.to("cpu")
            progress.update(number + 1)
        return shown


def check_previews(settings, cache):
    """What :class:`SampledPreviews` refuses, as far as the files' headers and the cache tell; nothing is loaded.

    Args:
        settings: PreviewSettings; cache: a LatentCache.

    Raises:
        ConfigError, CheckpointError: as that class.
    """
    _check_channels(planned_vae(settings, Assumptions()), _items_of(cache, settings.prompts), cache)


def _check_channels(vae, items, cache):
    channels = items[0].latents.shape[0]
    if channels != vae.latent_channels:
        raise ConfigError(
            f"preview.base_vae: its latents have {vae.latent_channels} channels, those of {cache.folder} "
            f"{channels}: give the VAE that the cache was made with"
        )


def _items_of(cache, prompts):
    if prompts is None:
        return [cache.read(index) for index in range(min(NUM_PREVIEWS, len(cache.keys)))]
    found = {}
    for index in range(len(cache.keys)):
        item = cache.read(index)
        found.setdefault(item.prompt, item)
        if all(prompt in found for prompt in prompts):
            return [found[prompt] for prompt in prompts]
    missing = next(prompt for prompt in prompts if prompt not in found)
    some = "; ".join(list(found)[:3])
    raise ConfigError(
        f"preview.prompts: no clip of {cache.folder} has the caption {missing!r}, so there is no context of it; its "
        f"captions are {some}; ..."
    )
