"""Whether a latent cache is one of the model that is to be trained, by files' headers alone."""

from safetensors import safe_open

from wan_alpha.data.latent_cache import item_path
from wan_alpha.errors import DataError
from wan_alpha.weights.wan_layout import DITS, find_wan_files, infer_dit_sizes, weight_shapes


def check_fits_dit(cache, in_dim, text_dim):
    """Refuse another model's cache.

    Args:
        cache: a LatentCache whose items are whole; in_dim: channels that the DiT takes; text_dim: numbers a token of
            the contexts that it takes.

    Raises:
        DataError: the cached latents or contexts do not have these sizes.
    """
    with safe_open(item_path(cache.folder, cache.keys[0]), framework="pt") as file:
        channels, width = file.get_slice("latents").get_shape()[0], file.get_slice("context").get_shape()[1]
    for what, found, expected in (("latents have", channels, in_dim), ("contexts have", width, text_dim)):
        if found != expected:
            raise DataError(
                f"{cache.folder}: its {what} {found} channels, the DiT takes {expected}; is it another model's cache?"
            )


def dit_widths(model):
    """(channels of latents, numbers a token of contexts) that the DiT of a recipe's TrainDiTModel takes.

    Raises:
        CheckpointError: no Wan DiT there.
    """
    files = find_wan_files(model.wan if model.dit is None else [str(model.dit)], parts=DITS)
    sizes = infer_dit_sizes(weight_shapes(files.dit), files.dit)
    return sizes["in_dim"], sizes["text_dim"]
