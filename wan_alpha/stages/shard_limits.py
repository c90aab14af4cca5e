"""What cannot train with the DiT's weights in shards (FSDP2): the same answer for a plan, its advice and a run."""

from wan_alpha.errors import ConfigError
from wan_alpha.stages.experts import BOTH
from wan_alpha.training.sharding import check_can_be_sharded

WORD_IN_SHARDS = "textual_inversion: the text encoder is not sharded; train without FSDP2 (DDP, one GPU)"
BOTH_IN_SHARDS = (
    "model.expert = both: processes that need different experts would wait for each other's shards; with FSDP2 train "
    "one expert a run"
)


def check_shards(recipe):
    """Refuse what FSDP2 cannot do, by the settings alone.

    Args:
        recipe: of train-dit; of another command it may ask for anything: only the DiT is ever in shards.

    Raises:
        ConfigError: frozen weights that are quantised or wait in host memory, both experts, a word that is learned, or
            an optimizer that does not work number by number.
    """
    if not hasattr(recipe, "adapter"):
        return
    asked = {
        f"model.quantization = {recipe.model.quantization!r}": recipe.model.quantization is not None,
        "training.offload_blocks": recipe.training.offload_blocks,
    }
    for name, is_asked in asked.items():
        if is_asked:
            raise ConfigError(
                f"{name}: FSDP2 shards plain weights on the devices alone; leave it out, or train without"
            )
    if recipe.textual_inversion.placeholder is not None:
        raise ConfigError(WORD_IN_SHARDS)
    if recipe.model.expert == BOTH:
        raise ConfigError(BOTH_IN_SHARDS)
    check_can_be_sharded(recipe.training)


def can_be_sharded(recipe):
    """Whether :func:`check_shards` lets a recipe pass."""
    try:
        check_shards(recipe)
    except ConfigError:
        return False
    return True
