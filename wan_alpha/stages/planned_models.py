"""Models without their weights, for a plan: of the files' sizes, or of a known model's where no files are there yet."""

from pathlib import Path

import torch

from wan_alpha.errors import CheckpointError, ConfigError
from wan_alpha.stages.expert_checks import check_is_expert, is_expert
from wan_alpha.weights import rgba_vae as naming
from wan_alpha.weights.registry import known_model, known_models
from wan_alpha.weights.wan_layout import DITS, find_wan_files, model_of_id

_TINY_FOLDER = "tiny_wan"  # as `wan-alpha demo` writes it


def known_model_of(source, assumptions):
    """The registry's model that a source names by its folder or id, or that the plan was told.

    Raises:
        ConfigError: neither names one.
    """
    if assumptions.model is not None:
        return known_model(assumptions.model)
    text = str(source)
    found = [name for name in known_models() if name != "tiny" and name.lower() in text.lower()]
    if found:
        return known_model(max(found, key=len))
    if _TINY_FOLDER in Path(text).parts:
        return known_model("tiny")
    names = ", ".join(known_models())
    raise ConfigError(f"{source}: not there, and its name is none of a known model: give --model, one of {names}")


def _stand_in(source, assumptions, error):
    """The known model to plan with where a source was not found, or else the error that said so.

    Of a run nothing may be assumed, but that it downloads a known model's files: their sizes are known.
    """
    if assumptions.are_allowed:
        return known_model_of(source, assumptions)
    known = model_of_id(source)
    if known is None:
        raise error
    return known


def planned_dit(model, assumptions):
    """(DiT of a recipe's TrainDiTModel on the meta device in float32, number of experts that the source holds).

    Raises:
        CheckpointError: not there, or no Wan DiT, and nothing may be assumed.
        ConfigError: two experts and no choice between them, or a choice where there is one.
    """
    from wan_alpha.models.load import shape_dit, shape_known_dit

    source = model.wan if model.dit is None else [str(model.dit)]
    try:
        files = find_wan_files(source, parts=DITS, local_only=True)
    except CheckpointError as error:
        known = _stand_in(model.dit or model.wan, assumptions, error)
        check_expert(model, known.num_experts == 2)
        check_is_expert(model, known.num_experts == 2)
        if known.name == "tiny":
            files = find_wan_files(_tiny_folder())
        else:
            assumptions.say(f"{source} is not there: the DiT has the sizes of {known.name} in the registry")
            return shape_known_dit(known.dit), known.num_experts
    check_expert(model, bool(files.dit_low_noise))
    check_is_expert(model, is_expert(files, source))
    chosen = files.dit_low_noise if model.expert == "low_noise" and files.dit_low_noise else files.dit
    return shape_dit(chosen), 2 if files.dit_low_noise else 1


def check_expert(model, has_two):
    """Raises:
    ConfigError: experts to choose from and no choice, or the choice of both where there is one.
    """
    if has_two and model.expert is None:
        raise ConfigError("model.wan holds two experts: say which is trained, model.expert")
    if model.expert == "both" and not has_two:
        raise ConfigError("model.expert = both: there is one DiT; name the folder of both experts")


def planned_text_encoder(source, assumptions):
    """The text encoder of a Wan model on the meta device, in float32.

    Raises:
        ConfigError, CheckpointError: as :func:`planned_dit`; a model without a text encoder.
    """
    from wan_alpha.models.load import shape_known_text_encoder, shape_text_encoder

    try:
        files = find_wan_files(source, parts=("text_encoder",), local_only=True)
    except CheckpointError as error:
        known = _stand_in(source, assumptions, error)
        if known.name != "tiny":
            assumptions.say(f"{source} is not there: the text encoder has the sizes of {known.name}'s")
            return shape_known_text_encoder(known.text_encoder)
        files = find_wan_files(_tiny_folder())
    if not files.text_encoder:
        raise ConfigError(f"{source}: holds no text encoder, to encode captions")
    return shape_text_encoder(files.text_encoder)


def planned_tokenizer(source, assumptions):
    """The folder of a Wan model's tokenizer; None where there is none and that may be.

    Raises:
        CheckpointError: none there, and nothing may be assumed.
    """
    may_lack = assumptions.are_allowed or model_of_id(source) is not None  # the run will download it
    try:
        folder = find_wan_files(source, parts=("tokenizer",), local_only=True).tokenizer
    except CheckpointError:
        if not may_lack:
            raise
        folder = None
    if not folder and not may_lack:
        raise CheckpointError(f"{source}: holds no tokenizer (google/umt5-xxl), to learn a word with")
    if not folder:
        assumptions.say(f"{source}: no tokenizer there: that the placeholder is new to it, and the initializer known")
    return folder or None


def planned_vae(model, assumptions):
    """The RGBA VAE of a recipe's model table on the meta device, what trains of it chosen.

    Raises:
        CheckpointError: a file that is not there, or is not what it should be, and nothing may be assumed.
    """
    from wan_alpha.models.rgba_vae import DEFAULT_LORA_RANK, RGBAlphaVAE

    rank, width = getattr(model, "lora_rank", None), getattr(model, "merge_width", None)
    for path in (model.rgba_weights, model.decoder_lora):
        if path is None:
            continue
        if assumptions.are_allowed and not Path(path).exists():
            assumptions.say(
                f"{path} is not there: its LoRA has rank {DEFAULT_LORA_RANK} and its merge block full width"
            )
            continue
        weights = naming.read_rgba_vae(path)
        if weights.part("foreground"):
            rank = naming.lora_rank(weights.part("foreground"), path)
        if "conv1.weight" in weights.part("merge"):
            width = weights.part("merge")["conv1.weight"].shape[0]
    base = _base_vae(model.base_vae, assumptions)
    with torch.device("meta"):
        vae = RGBAlphaVAE(base, rank or DEFAULT_LORA_RANK, merge_width=width, init="random")
    vae.chunk_size = getattr(model, "chunk_size", None)
    return vae.set_trainable(getattr(model, "mode", "none"))


def _base_vae(path, assumptions):
    from wan_alpha.models.base_vae import shape_base_vae, shape_known_vae

    if Path(path).exists() or not assumptions.are_allowed:
        return shape_base_vae(path)
    if _TINY_FOLDER in Path(path).parts:
        return shape_base_vae(_tiny_folder())
    real = (model for name, model in known_models().items() if name != "tiny")
    known = next((one for one in real if one.components["vae"] == Path(path).name), None)
    known = known or known_model_of(path, assumptions)
    assumptions.say(f"{path} is not there: it is {known.components['vae']} of {known.name}")
    return shape_known_vae(known.vae)


def _tiny_folder():
    from wan_alpha.models.tiny import tiny_wan_folder

    return tiny_wan_folder()
