"""Which adapter goes into which expert of a model, before sampling."""

from wan_alpha.errors import ConfigError
from wan_alpha.models.adapters import merge_adapter_into
from wan_alpha.weights.adapters import EXPERTS, adapter_file
from wan_alpha.weights.io import read_metadata

HIGH, LOW = EXPERTS


def merge_adapters(pipe, model):
    """Merge a recipe's adapters into the DiT, or into each of two experts its own.

    With two experts (Wan2.2 A14B) ``adapter_low_noise`` belongs to the low-noise one and ``adapter`` to the other.
    Without it ``adapter`` goes where its file says: into the expert that it was trained on, into each its half of a
    file of both, or, saying nothing, into both. ``distillation_lora`` goes the same way, after it.

    Args:
        pipe: with ``dit``, and ``dit2`` for low noise where there are two; model: GenerateModel.

    Raises:
        ConfigError: an adapter for the second expert of a model that has one, or for another expert than its file says.
        CheckpointError: a file that is no adapter, or does not fit.
    """
    for option, scale in (("adapter", model.adapter_scale), ("distillation_lora", 1.0)):
        path, path_low = getattr(model, option), getattr(model, f"{option}_low_noise")
        if path_low is not None and pipe.dit2 is None:
            raise ConfigError(
                f"model.{option}_low_noise: this model has one DiT alone; give the file as model.{option}"
            )
        if pipe.dit2 is None:
            if path is not None:
                merge_adapter_into(pipe.dit, path, scale)
            continue
        chosen = _choose(option, path, path_low)
        for expert, dit in ((HIGH, pipe.dit), (LOW, pipe.dit2)):
            if expert in chosen:
                merge_adapter_into(dit, chosen[expert], scale, expert=expert)


def _choose(option, path, path_low):
    """expert -> file, for a model of two."""
    for expert, file in ((HIGH, path if path_low is not None else None), (LOW, path_low)):
        told = None if file is None else _expert_of(file)
        if told not in (None, expert):
            name = option if expert == HIGH else f"{option}_low_noise"
            raise ConfigError(f"model.{name}: {file} was trained on the {told} expert; exchange the two files")
    if path_low is not None:
        return {LOW: path_low} if path is None else {HIGH: path, LOW: path_low}
    if path is None:
        return {}
    told = _expert_of(path)
    return {expert: path for expert in EXPERTS if told in (None, expert)}


def _expert_of(path):
    return read_metadata(adapter_file(path)).get("expert")
