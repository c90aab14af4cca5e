"""A latent cache as what stage 2 trains on."""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property

import torch
from torch.utils.data import Dataset

from wan_alpha.data.latent_cache import LatentCache, content_key, item_shape, pad_context
from wan_alpha.data.mixture import Mixture, Part, share_table
from wan_alpha.data.sampling import choose_caption, derive_seed
from wan_alpha.data.tables import text_table


class LatentCacheDataset(Dataset):
    """A cache as training samples.

    Items: ``latents`` (C, t, h, w), ``context`` (context_length, text_dim) zero-padded, ``ellipse`` (t, h, w), all
    float32; ``prompt``, of several captions one; ``sample_seed``, int. The seed, and by it the caption, depends on
    (seed, epoch, index) alone, so that neither the number of processes and workers nor an interruption changes what a
    sample sees.

    Args:
        cache: a :class:`LatentCache`.
        seed: the run's seed.
        repeat: how often an epoch passes over the cache; each pass draws other noise.
    """

    def __init__(self, cache: LatentCache, seed: int = 0, repeat: int = 1):
        assert repeat >= 1
        self.cache, self.seed = cache, seed
        parts = cache.index.parts or ({"name": str(cache.folder), "num_items": len(cache.keys), "weight": None},)
        self.mixture = Mixture([Part(part["name"], part["num_items"], repeat, part["weight"]) for part in parts], seed)
        # In shared memory, so that set_epoch reaches workers that live on from one epoch to the next.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose seeds are handed out from now on, counted from 0."""
        self._epoch.fill_(epoch)

    def fingerprint(self) -> dict[str, str]:
        """What the cache was made by and holds; each is a hash."""
        index = self.cache.index
        return {
            "the RGBA VAE that made the latents": index.vae_fingerprint,
            "the text encoder that made the contexts": index.text_fingerprint,
            "cached clips": content_key(keys=index.keys),
            "shares of the datasets": content_key(parts=index.parts),
        }

    @cached_property
    def _shapes(self) -> list[tuple[int, int, int]]:
        shapes = {key: item_shape(self.cache.folder, key) for key in dict.fromkeys(self.cache.keys)}
        return [shapes[key] for key in self.cache.keys]

    def summary(self) -> str:
        """What a run says at its start: tables of sizes and, for several datasets, of their shares."""
        counts = Counter(self._shapes)
        rows = [["x".join(map(str, shape)), count] for shape, count in sorted(counts.items())]
        sizes = text_table(["latents (frames x height x width)", "clips"], rows)
        return "\n".join([sizes, *share_table(self.mixture)])

    def epoch_samples(self, epoch: int) -> Sequence[int]:
        """The indices of the samples of an epoch."""
        return self.mixture.epoch_samples(epoch)

    def group_of(self, index: int) -> tuple[int, int, int]:
        """(t, h, w) of a sample's latents: samples of one group fit into one batch."""
        return self._shapes[self.mixture.clip(index)]

    def __len__(self) -> int:
        return len(self.mixture)

    def __getitem__(self, index: int) -> dict:
        return self.sample(int(self._epoch), index)

    def sample(self, epoch: int, index: int) -> dict:
        """The sample of an epoch, whichever `set_epoch` chose."""
        sample_seed = derive_seed(self.seed, epoch, index)
        item = self.cache.read(self.mixture.clip(index))
        return self._sample(item, choose_caption(len(item.captions), sample_seed)) | {"sample_seed": sample_seed}

    def clip(self, number: int) -> dict:
        """The sample of one clip of the cache with its first caption, without a seed: for validation."""
        return self._sample(self.cache.read(number), 0)

    def _sample(self, item, caption):
        prompt, context = item.captions[caption]
        return {
            "latents": item.latents.float(),
            "context": pad_context(context.float(), self.cache.index.context_length),
            "ellipse": item.ellipse.float(),
            "prompt": prompt,
        }
