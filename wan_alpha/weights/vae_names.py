"""Names of the Wan VAEs' parameters: Wan's own, and those that diffusers' AutoencoderKLWan gave them.

    Wan2.1 (16 channels)                        diffusers
    encoder.downsamples.3.residual.2.weight     encoder.down_blocks.3.conv1.weight
    decoder.upsamples.5.residual.0.gamma        decoder.up_blocks.1.resnets.1.norm1.gamma
    decoder.upsamples.7.time_conv.weight        decoder.up_blocks.1.upsamplers.0.time_conv.weight
    conv1.weight, conv2.weight                  quant_conv.weight, post_quant_conv.weight

The Wan2.2 VAE (48 channels) has blocks within its blocks: ``encoder.downsamples.1.downsamples.0.residual.2.weight`` is
``encoder.down_blocks.1.resnets.0.conv1.weight``, and the last of each is its ``downsampler`` or ``upsampler``.
"""

import re

_PLAIN = {
    "quant_conv": "conv1", "post_quant_conv": "conv2", "encoder.conv_in": "encoder.conv1",
    "decoder.conv_in": "decoder.conv1", "encoder.norm_out": "encoder.head.0", "decoder.norm_out": "decoder.head.0",
    "encoder.conv_out": "encoder.head.2", "decoder.conv_out": "decoder.head.2",
}  # fmt: skip
_RESIDUAL = {
    "norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6",
    "conv_shortcut": "shortcut",
}  # fmt: skip
_UP_BLOCK = 4  # layers of a flat up block: three residual ones and the upsampler
_LAST_DOWN, _LAST_UP = 2, 3  # places of the resampling layer within a block of the Wan2.2 VAE


def vae_from_diffusers(name):
    """Wan's name of a parameter that diffusers names so; None for any other name."""
    layer, _, parameter = name.rpartition(".")
    if layer in _PLAIN:
        return f"{_PLAIN[layer]}.{parameter}"
    for pattern, rename in _RULES:
        match = re.fullmatch(pattern, layer)
        if match and (wan := rename(match)) is not None:
            return f"{wan}.{parameter}"
    return None


def _middle(match):
    side, kind, number, rest = match[1], match[2], int(match[3]), match[4]
    if kind == "attentions":
        return f"{side}.middle.{2 * number + 1}.{rest}"
    return _within(f"{side}.middle.{2 * number}", rest)


def _within(block, layer):
    return f"{block}.{_RESIDUAL[layer]}" if layer in _RESIDUAL else None


def _flat_down(match):
    number, layer = match[1], match[2]
    if layer in _RESIDUAL:
        return f"encoder.downsamples.{number}.{_RESIDUAL[layer]}"
    return f"encoder.downsamples.{number}.{layer}" if layer in ("resample.1", "time_conv") else None


_RULES = (
    (r"(encoder|decoder)\.mid_block\.(resnets|attentions)\.(\d+)\.(.+)", _middle),
    (r"encoder\.down_blocks\.(\d+)\.([^.]+(?:\.1)?)", _flat_down),
    (
        r"decoder\.up_blocks\.(\d+)\.upsamplers\.0\.(resample\.1|time_conv)",
        lambda match: f"decoder.upsamples.{_UP_BLOCK * int(match[1]) + 3}.{match[2]}",
    ),
    (
        r"encoder\.down_blocks\.(\d+)\.resnets\.(\d+)\.(.+)",
        lambda match: _within(f"encoder.downsamples.{match[1]}.downsamples.{match[2]}", match[3]),
    ),
    (
        r"encoder\.down_blocks\.(\d+)\.downsampler\.(resample\.1|time_conv)",
        lambda match: f"encoder.downsamples.{match[1]}.downsamples.{_LAST_DOWN}.{match[2]}",
    ),
    (
        r"decoder\.up_blocks\.(\d+)\.upsampler\.(resample\.1|time_conv)",
        lambda match: f"decoder.upsamples.{match[1]}.upsamples.{_LAST_UP}.{match[2]}",
    ),
)


def up_resnet_from_diffusers(name, is_nested):
    """As :func:`vae_from_diffusers`, for a residual layer of the decoder, whose name does not say which VAE it is of.

    Args:
        is_nested: the Wan2.2 VAE's blocks within blocks.
    """
    match = re.fullmatch(r"decoder\.up_blocks\.(\d+)\.resnets\.(\d+)\.([^.]+)\.(\w+)", name)
    if match is None or match[3] not in _RESIDUAL:
        return None
    if is_nested:
        return f"decoder.upsamples.{match[1]}.upsamples.{match[2]}.{_RESIDUAL[match[3]]}.{match[4]}"
    return f"decoder.upsamples.{_UP_BLOCK * int(match[1]) + int(match[2])}.{_RESIDUAL[match[3]]}.{match[4]}"
