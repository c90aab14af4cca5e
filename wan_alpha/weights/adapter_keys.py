"""The keys of adapter files: which dialect a file speaks, and which layer and part of its adapter a key names.

=============  ====================================================================================================
wan-alpha      ``blocks.0.self_attn.q.lora_A.default.weight``, ``.lora_magnitude_vector.default.weight``: the release's
               names, and this project's own
peft           ``base_model.model.blocks.0.self_attn.q.lora_A.weight``, ``.lora_magnitude_vector``
diffusers      ``transformer.blocks.0.attn1.to_q.lora_A.weight``, ``.lora_magnitude_vector``
comfyui        ``diffusion_model.blocks.0.self_attn.q.lora_down.weight``, ``.alpha``, ``.dora_scale``, ``.lokr_w1``,
               ``.diff_b``; kohya's ``lora_unet_blocks_0_self_attn_q.lora_down.weight``
=============  ====================================================================================================
"""

import re
from typing import NamedTuple

from wan_alpha.errors import CheckpointError
from wan_alpha.weights.dit_names import from_diffusers, from_flat, is_diffusers

DIALECTS = ("wan-alpha", "peft", "diffusers", "comfyui")
# A14B's two DiTs, and diffusers' names of them.
EXPERTS, TRANSFORMERS = ("high_noise", "low_noise"), ("transformer", "transformer_2")
DIFFERENCES = ("weight", "bias", "modulation")
KRONECKER = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b")
_PEFT_PREFIX = "base_model.model."
_DIFFUSERS_PREFIXES = tuple(f"{name}." for name in TRANSFORMERS)
_COMFYUI_PREFIXES = ("model.diffusion_model.", "diffusion_model.")
_FLAT_PREFIXES = ("lora_unet_", "lycoris_", "lora_transformer_")
_PREFIXES = (_PEFT_PREFIX, "pipe.dit.", *_COMFYUI_PREFIXES)
# How a key ends -> the part of the adapter that it holds. PEFT's adapter name is whatever the writer chose.
_PARTS = {
    r"\.(?:lora_A(?:\.\w+)?\.weight|lora_A|lora_down(?:\.weight)?)": "down",
    r"\.(?:lora_B(?:\.\w+)?\.weight|lora_B|lora_up(?:\.weight)?)": "up",
    r"\.lora_B(?:\.\w+)?\.bias": "up_bias",
    r"\.(?:lora_magnitude_vector(?:\.\w+)?\.weight|lora_magnitude_vector(?:\.\w+)?)": "magnitude",
    r"\.dora_scale": "dora_scale",
    r"\.alpha": "alpha",
    r"\.(?:diff_m|modulation\.diff)": "modulation",
    r"\.diff": "weight",
    r"\.diff_b": "bias",
    **{rf"\.{factor}(?:\.\w+)?": factor for factor in KRONECKER},
}
_NOT_READ = {
    "vae_fgr.": "an RGBA VAE, which has no other dialect; stage 1 writes it for the release, as decoder.bin too",
    "merge.": "an RGBA VAE, which has no other dialect; stage 1 writes it for the release, as decoder.bin too",
    "hada_": "LoHa, which is not read; merge it into its base with the program that made it",
    "lokr_t2": "a LoKr of a convolution with its core, which no layer of a Wan DiT has",
    "lora_mid": "a LoRA of a convolution with a middle matrix, which no layer of a Wan DiT has",
}


class KeyParts(NamedTuple):
    """A key, taken apart.

    Attributes:
        layer: name of the layer as Wan names it (``blocks.0.self_attn.q``); written: as the file names it.
        part: what the tensor is of that layer's adapter: "down", "up", "magnitude", "alpha", "lokr_w1", "bias", ...
        low_noise: whether the key says that it is of the second expert's transformer (``transformer_2.``).
    """

    layer: str
    written: str
    part: str
    low_noise: bool


def recognise_dialect(keys):
    """Which of DIALECTS the keys of a file are written in."""
    keys = list(keys)
    if any(key.startswith(_PEFT_PREFIX) for key in keys):
        return "peft"
    if any(key.startswith(_DIFFUSERS_PREFIXES) for key in keys):
        return "diffusers"
    parts = [match for match in map(_match, keys) if match is not None]
    if any(is_diffusers(layer) for layer, _ in parts):
        return "diffusers"
    prefixes = (*_COMFYUI_PREFIXES, *_FLAT_PREFIXES)
    theirs = {"dora_scale", "alpha", *DIFFERENCES, *KRONECKER}
    if any(key.startswith(prefixes) or ".lora_down" in key for key in keys) or any(part in theirs for _, part in parts):
        return "comfyui"
    return "wan-alpha"


def split_key(path, key):
    """Take one key apart.

    Args:
        path: the file, for the message.

    Raises:
        CheckpointError: a key of none of the namings, or of a kind of adapter that is not read.
    """
    found = _match(key)
    if found is None:
        known = "one that ends with lora_A/lora_B or lora_down/lora_up, lora_magnitude_vector or dora_scale, alpha, "
        reason = f"expected {known}lokr_w1/lokr_w2, diff, diff_b, diff_m"
        reason = next((f"it belongs to {kind}" for mark, kind in _NOT_READ.items() if mark in key), reason)
        raise CheckpointError(f"{path}: {key} is no adapter key; {reason}")
    written, part = found
    return KeyParts(_wan_layer(path, key, written), written, part, is_of_low_noise(key))


def is_of_low_noise(key):
    """Whether a key says that it is of the second expert's transformer, as diffusers names it."""
    return key.startswith(_DIFFUSERS_PREFIXES[1])


def _match(key):
    name = key
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    for pattern, part in _PARTS.items():
        match = re.fullmatch(rf"(.+?){pattern}", name)
        if match:
            return match[1], part
    return None


def _wan_layer(path, key, written):
    for prefix in _FLAT_PREFIXES:
        if written.startswith(prefix):
            layer = from_flat(written.removeprefix(prefix))
            if layer is None:
                raise CheckpointError(f"{path}: {key} names no layer of a Wan DiT; is it an adapter for another model?")
            return layer
    for prefix in _DIFFUSERS_PREFIXES:
        if written.startswith(prefix):
            written = written.removeprefix(prefix)
            return from_diffusers(written) or written
    return from_diffusers(written) if is_diffusers(written) else written
