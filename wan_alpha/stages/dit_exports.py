"""What stage 2 leaves behind: adapters, whole DiTs, placeholders, and what each of these files says of itself."""

from dataclasses import replace
from pathlib import Path

from wan_alpha.models.adapters import adapter_state_dict
from wan_alpha.stages.experts import file_of_expert
from wan_alpha.training.checkpoints import NAMES_BELOW
from wan_alpha.training.run_folder import run_start, run_title
from wan_alpha.training.sharding import gathered_on_main
from wan_alpha.weights.adapter_card import SPEC, AdapterCard, architecture_of, own_metadata
from wan_alpha.weights.adapters import adapter_metadata
from wan_alpha.weights.io import rounded_sha256, save_safetensors

ADAPTER_FILE = "adapter.safetensors"
DIT_FILE = "dit.safetensors"
DIT_FORMAT = "wan_alpha.dit"
# What a file made of a checkpoint says anew: the same run in another folder has the same checkpoints to the byte.
_OF_ONE_FILE = {f"{SPEC}title", f"{SPEC}date", f"{SPEC}hash_sha256", "recipe", "recipe_sha256"}


def run_cards(recipe, base_sha256, cache) -> dict:
    """What a run's results say of where they are from: the same at every checkpoint and in a continued run.

    Args:
        recipe: a TrainDiTRecipe; base_sha256: expert -> hash of its weights; cache: the LatentCache trained on.

    Returns:
        expert -> AdapterCard.
    """
    card = AdapterCard(
        title=run_title(recipe.output_dir, recipe.title),
        date=run_start(recipe.output_dir),
        resolution=clip_resolution(cache),
        recipe=recipe.as_dict(),
        trigger_words=recipe.trigger_words,
        tokens=tuple(filter(None, [recipe.textual_inversion.placeholder])),
    )
    return {expert: replace(card, base_sha256=sha256) for expert, sha256 in base_sha256.items()}


def base_weights(model, base_sha256) -> dict:
    """Option -> {"file", "sha256"} of the DiTs that a run began from; arguments as above, model: a TrainDiTModel."""
    option, file = ("model.wan", model.wan) if model.dit is None else ("model.dit", model.dit)
    return {
        option if expert is None else f"{option} ({expert})": {"file": str(file), "sha256": sha256}
        for expert, sha256 in base_sha256.items()
    }


def clip_resolution(cache) -> str | None:
    """Pixels of a cache's clips, width x height, as ModelSpec writes it; None where they are not all of one size."""
    size = [cache.index.preprocessing.get(name) for name in ("width", "height")]
    return "x".join(map(str, size)) if all(isinstance(side, int) for side in size) else None


def export_trained(module, folder, cards) -> list[Path]:
    """Write what was trained: an adapter in the released naming or the whole DiT in Wan's, and a placeholder's vectors.

    With the weights in shards all processes come here, each with its part, and the first one writes.

    Returns:
        the files.
    """
    contents = trained_files(module, cards)
    for expert, dit in module.experts() if module.adapter.kind == "full" else ():
        tensors = gathered_on_main(dit.state_dict())
        contents[file_of_expert(DIT_FILE, expert)] = tensors, _dit_metadata(dit, tensors, cards[expert], expert)
    for name, (tensors, metadata) in contents.items():
        if tensors:
            save_safetensors(tensors, Path(folder) / name, metadata)
    return [Path(folder) / name for name in contents]


def trained_files(module, cards) -> dict:
    """Adapter and placeholder: file name -> (tensors, metadata). The whole DiT is not among them: a checkpoint holds it
    once already."""
    placeholder = {} if module.captions is None else module.captions.files(next(iter(cards.values())))
    return adapter_files(module, cards) | placeholder


def adapter_files(module, cards) -> dict:
    """Each expert's adapter in the released naming: file name -> (tensors, metadata); {} where there is none.

    With the weights in shards the first process alone has the tensors.
    """
    adapter, files = module.adapter, {}
    for expert, dit in module.experts() if adapter.kind in ("dora", "lora") else ():
        tensors = gathered_on_main(adapter_state_dict(dit))
        files[file_of_expert(ADAPTER_FILE, expert)] = tensors, _adapter_metadata(adapter, tensors, cards, expert)
    return files


def describe_weights(module, cards) -> dict:
    """What a checkpoint's own weights must say, for whoever makes one file of them; {} where they are more than that.

    Args:
        cards: expert -> AdapterCard, of :func:`run_cards`.
    """
    adapter = module.adapter
    if module.captions is not None or len(module.experts()) > 1 or adapter.kind == "none":
        return {}
    ((expert, dit),) = module.experts()
    if adapter.kind == "full":
        said = _dit_metadata(dit, {}, cards[expert], expert)
    else:
        said = _adapter_metadata(adapter, dict(dit.named_parameters()), cards, expert)
    return {NAMES_BELOW: "pipe.dit."} | {name: value for name, value in said.items() if name not in _OF_ONE_FILE}


def weights_sha256(dit, callback=None) -> str:
    """Hash of weights rounded to bfloat16: the same for a float32 file and its bfloat16 copy."""
    return rounded_sha256(dit.state_dict(), callback)


def _adapter_metadata(adapter, tensors, cards, expert):
    metadata = adapter_metadata(
        tensors, kind=adapter.kind, rank=adapter.rank, alpha=adapter.alpha, targets=adapter.targets, card=cards[expert]
    )
    return metadata | _of_expert(expert)


def _dit_metadata(dit, tensors, card, expert):
    card = replace(card, architecture=architecture_of(dit.dim))
    # The one size that shapes do not tell: a file without Wan's config.json beside it can then be loaded.
    own = {"format": DIT_FORMAT, "format_version": "1", "num_heads": str(dit.blocks[0].self_attn.num_heads)}
    return own | _of_expert(expert) | own_metadata(card, tensors, "full")


def _of_expert(expert):
    return {} if expert is None else {"expert": expert}
