"""Which adapter goes into which expert of a model, before sampling; and whether it fits, before anything is loaded."""

from wan_alpha.errors import ConfigError
from wan_alpha.models.adapters import check_adapter_fits, merge_adapter_into
from wan_alpha.weights.adapter_card import read_adapter_card
from wan_alpha.weights.adapter_keys import EXPERTS
from wan_alpha.weights.adapters import adapter_file, read_adapter
from wan_alpha.weights.io import read_metadata, rounded_sha256
from wan_alpha.weights.part_reader import find_part_in
from wan_alpha.weights.wan_layout import DITS, find_wan_files

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
    for path, scale, expert in assigned_adapters(model, pipe.dit2 is not None):
        merge_adapter_into(pipe.dit2 if expert == LOW else pipe.dit, path, scale, expert=expert)


def check_adapters(model):
    """Refuse adapters that do not fit the model, by the headers of its files: nothing of it is loaded.

    Args:
        model: GenerateModel.

    Raises:
        ConfigError, CheckpointError: as :func:`merge_adapters`.
    """
    files = find_wan_files(model.wan, parts=DITS)
    if not files.dit:
        return  # for the loader to say
    for path, _, expert in assigned_adapters(model, bool(files.dit_low_noise)):
        base = files.dit_low_noise if expert == LOW else files.dit
        check_adapter_fits(find_part_in(base, "dit").tensors, read_adapter(path, expert))


def notes_on_bases(pipe, model, files, digests, callback=None):
    """Sentences on adapters that were trained on other weights than these: they fit, and may do less than they did.

    Args:
        pipe: before its adapters are merged; model: GenerateModel; files: WanFiles of the pipe's DiT.
        digests: Digests, where the weights' hash is remembered; callback: (stage, done, total) while it is made.
    """
    for path, _, expert in assigned_adapters(model, pipe.dit2 is not None):
        told = read_adapter_card(adapter_file(path)).base_sha256
        if told is None:
            continue
        dit, paths = (pipe.dit2, files.dit_low_noise) if expert == LOW else (pipe.dit, files.dit)
        if digests.derived("base_sha256", paths, lambda dit=dit: rounded_sha256(dit.state_dict(), callback)) != told:
            yield (
                f"{path}: trained on other weights than {paths[0].parent} (base_sha256 {told[:12]}...); it fits, and "
                "may look different from what it showed there"
            )


def assigned_adapters(model, has_two):
    """Yields (file, strength, expert) of a recipe's adapters in the order of merging; the expert is None for a model's
    only DiT.

    Raises:
        ConfigError: as :func:`merge_adapters`.
    """
    for option, scale in (("adapter", model.adapter_scale), ("distillation_lora", 1.0)):
        path, path_low = getattr(model, option), getattr(model, f"{option}_low_noise")
        if path_low is not None and not has_two:
            raise ConfigError(
                f"model.{option}_low_noise: this model has one DiT alone; give the file as model.{option}"
            )
        if not has_two:
            chosen = {} if path is None else {None: path}
        else:
            chosen = _choose(option, path, path_low)
        for expert in (None, HIGH, LOW):
            if expert in chosen:
                yield chosen[expert], scale, expert


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
    told = read_metadata(adapter_file(path)).get("expert")
    # Files of earlier versions say "null" where a model's only DiT was trained.
    return told if told in EXPERTS else None
