"""An adapter baked into a model on disk, tensor by tensor: memory holds one weight, never a model."""

from dataclasses import dataclass
from pathlib import Path

from wan_alpha.errors import ConfigError
from wan_alpha.models.adapters import check_adapter_fits, merged_parameter
from wan_alpha.weights.adapter_card import IMPLEMENTATION, SPEC, SPEC_VERSION, architecture_of
from wan_alpha.weights.adapters import read_adapter
from wan_alpha.weights.base_weights import BaseWeights
from wan_alpha.weights.io import write_stream
from wan_alpha.weights.safetensors_stream import safetensors_stream
from wan_alpha.weights.wan_layout import infer_dit_sizes


@dataclass(frozen=True)
class MergedModel:
    """What was written.

    Attributes:
        path: the file; num_changed, num_tensors: how many of its tensors the adapter changed, and how many it has.
        is_same_base: whether the base is the one that the adapter was trained on; None where the adapter does not say.
    """

    path: Path
    num_changed: int
    num_tensors: int
    is_same_base: bool | None


def merge_files(base, adapter, output, *, scale=1.0, expert=None, dora_norm=None, callback=None):
    """Write a base model with an adapter baked in; the arithmetic of ``merge_adapter``, float32, in the base's dtypes.

    Args:
        base: as ``BaseWeights`` takes it; adapter: as ``read_adapter`` takes it, with its dora_norm.
        output: ``.safetensors``, with the base's own names; one file, also where the base has shards.
        scale: 0 leaves the base, 1 applies the adapter in full.
        expert: "high_noise" or "low_noise": which of a base's two, and which adapter of a file that holds two.
        callback: (stage, number of tensors done, number in all), after each.

    Raises:
        CheckpointError: weights that are not what they claim, or an adapter for another base, named by its first layer
            that does not fit; nothing is written then.
        ConfigError: an output that is none, or that is the base.
    """
    output = Path(output)
    weights = BaseWeights(base, expert)
    if output.suffix != ".safetensors":
        raise ConfigError(f"output {output}: expected a name that ends with .safetensors")
    if any(output.exists() and output.samefile(shard) for shard in weights.shards):
        raise ConfigError(f"output {output} is the base itself; give another name")
    update = read_adapter(adapter, expert, dora_norm)
    outlines = weights.outlines()
    changed = set(check_adapter_fits(outlines, update))
    card = update.card
    is_same_base = None if card.base_sha256 is None else weights.sha256() == card.base_sha256
    names = {weights.keys_of[name][1]: name for name in outlines}
    done = 0

    def load(key):
        nonlocal done
        name = names[key]
        tensor = merged_parameter(weights[name], update, name, scale) if name in changed else weights[name]
        done += 1
        if callback is not None:
            callback("merging", done, len(names))
        return tensor

    own = {key: outlines[name] for key, name in names.items()}
    write_stream(safetensors_stream(own, _metadata(weights, update, outlines), load), output)
    return MergedModel(output, len(changed), len(names), is_same_base)


def _metadata(weights, update, outlines):
    stale = {f"{SPEC}hash_sha256", "sshs_model_hash", "sshs_legacy_hash", "base_sha256"}
    metadata = {key: value for key, value in weights.metadata().items() if key not in stale}
    title = metadata.get(f"{SPEC}title") or weights.shards[0].stem
    merged = update.card.title or update.path.stem
    sizes = infer_dit_sizes({name: tuple(outline.shape) for name, outline in outlines.items()}, weights.shards)
    metadata |= {
        f"{SPEC}sai_model_spec": SPEC_VERSION,
        f"{SPEC}architecture": metadata.get(f"{SPEC}architecture", architecture_of(sizes["dim"])),
        f"{SPEC}implementation": metadata.get(f"{SPEC}implementation", IMPLEMENTATION),
        f"{SPEC}title": f"{title} + {merged}",
        f"{SPEC}merged_from": f"{title}, {merged}",
        # Shapes do not tell it, and no config.json lies beside the new file.
        "num_heads": str(sizes["num_heads"]),
    }
    if update.card.trigger_words:
        metadata[f"{SPEC}trigger_phrase"] = ", ".join(update.card.trigger_words)
    return metadata
