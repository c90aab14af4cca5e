"""``wan-alpha convert-adapter`` and ``wan-alpha merge``: adapters for other programs, or baked into their model."""

from dataclasses import dataclass, replace
from pathlib import Path

from wan_alpha.errors import ConfigError
from wan_alpha.training.progress import StageBars, StepProgress


@dataclass(frozen=True)
class ConvertedAdapter:
    """What was written: the files, the adapter's kind and number of layers, the dialects it came from and went to."""

    files: tuple[Path, ...]
    kind: str
    num_layers: int
    source_dialect: str
    dialect: str


def convert_adapter(recipe):
    """Convert a ConvertAdapterRecipe's adapter; returns a ConvertedAdapter.

    Raises:
        CheckpointError: the source is no adapter, or holds what the dialect cannot.
        ConfigError: an output that is none for the dialect or is the source, or an option without effect.
    """
    from wan_alpha.weights.adapter_dialects import write_dialect
    from wan_alpha.weights.adapters import read_adapter
    from wan_alpha.weights.base_weights import BaseWeights
    from wan_alpha.weights.dora_norm import with_dora_norm
    from wan_alpha.weights.safetensors_stream import DTYPES

    adapter = read_adapter(recipe.source, recipe.expert)
    has_magnitudes = any(module.magnitude is not None for module in adapter.modules.values())
    of_comfyui = "comfyui" in (adapter.dialect, recipe.to)
    if recipe.dora_norm is not None and not (has_magnitudes and of_comfyui):
        raise ConfigError(f"dora_norm = {recipe.dora_norm} has no effect: no DoRA of ComfyUI's is read or written")
    if recipe.output.exists() and recipe.output.samefile(adapter.path):
        raise ConfigError(f"output {recipe.output} is the adapter itself; give another name")
    norm = "adapted"
    if adapter.dialect == "comfyui":
        adapter = replace(adapter, dora_norm=recipe.dora_norm or adapter.dora_norm)
        norm = adapter.dora_norm if recipe.to == "comfyui" else norm
    elif recipe.to == "comfyui":
        norm = recipe.dora_norm or "base"
    dtype = None if recipe.dtype is None else DTYPES[recipe.dtype.upper().replace("FP", "F")]
    base = None if recipe.base is None else BaseWeights(recipe.base, recipe.expert)
    with StageBars("layers") as bars:
        normed = with_dora_norm(adapter, norm, base, bars)
    files = write_dialect(normed, recipe.output, recipe.to, dtype)
    print(f"{adapter.kind} of {len(adapter.modules)} layers, from {adapter.dialect} to {recipe.to}:")
    print("\n".join(f"  {file}" for file in files))
    if has_magnitudes and adapter.dora_norm != norm:
        print(f"note: magnitudes are divided by the {norm} weight's row norms now, as {recipe.to} does")
    return ConvertedAdapter(tuple(files), adapter.kind, len(adapter.modules), adapter.dialect, recipe.to)


def merge(recipe):
    """Merge a MergeRecipe's adapter into its base; returns the MergedModel.

    Raises:
        CheckpointError: weights that are not what they claim, or an adapter for another base.
        ConfigError: an output that is none, or that is the base.
    """
    from wan_alpha.models.merge import merge_files

    with StepProgress("merging", None, unit="tensors") as bar:
        merged = merge_files(
            recipe.base, recipe.adapter, recipe.output, scale=recipe.scale, expert=recipe.expert,
            dora_norm=recipe.dora_norm, callback=lambda stage, done, total: bar.update(done, total=total),
        )  # fmt: skip
    print(f"{merged.path}: {merged.num_changed} of {merged.num_tensors} tensors changed")
    if merged.is_same_base is False:
        print("note: the adapter was trained on other weights of these shapes (base_sha256 differs)")
    return merged
