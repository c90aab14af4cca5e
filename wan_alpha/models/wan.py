"""Text contexts of prompts, and the velocity that a Wan DiT predicts; the pipeline itself is built in ``load``."""

import torch
import torch.nn.functional as F
from diffsynth.core import gradient_checkpoint_forward
from diffsynth.models.wan_video_dit import sinusoidal_embedding_1d
from torch import nn

from wan_alpha.models.devices import choose_device, choose_dtype  # noqa: F401 (known from here)
from wan_alpha.models.load import load_dit, load_text_encoder, load_tokenizer, load_wan  # noqa: F401 (known from here)
from wan_alpha.models.real_arithmetic import sinusoidal_embedding_real, use_real_rotary


@torch.no_grad()
def encode_prompts(pipe, prompts):
    """:func:`encode_prompts_with_gradient` without the gradient."""
    return encode_prompts_with_gradient(pipe, prompts)


def encode_prompts_with_gradient(pipe, prompts):
    """Text context of prompts, each padded with zeros after its last token, as Wan's DiT expects it.

    Args:
        pipe: with text encoder and tokenizer; prompts: list of str.

    Returns:
        (B, L, text_dim) on the text encoder's device, L the tokenizer's length.
    """
    device = pipe.text_encoder.token_embedding.weight.device
    ids, mask = pipe.tokenizer(list(prompts), return_mask=True, add_special_tokens=True)
    mask = mask.to(device)
    context = pipe.text_encoder(ids.to(device), mask)
    return context.masked_fill(mask.unsqueeze(-1) == 0, 0)


def predict_velocity(
    dit, latents, timesteps, context, *, gradient_checkpointing=False, offload_activations=False
):  # fmt: skip
    """The velocity a text-to-video Wan DiT predicts: v = noise - latents at noisy = (1-sigma)*latents + sigma*noise.

    The time embedding is computed in float32 whatever the weights are in, since bf16 knows only 294 of the 1000
    timesteps; the blocks run in the weights' dtype, or in autocast's. On MPS rotary and time embedding are computed
    without float64 and complex numbers.

    Args:
        dit: a ``WanModel`` without image input.
        latents: noisy, normalised, (B, C, T, h, w).
        timesteps: 1000*sigma, (B,) float32.
        context: text context, (B, L, text_dim).
        gradient_checkpointing: recompute the blocks in the backward pass instead of keeping their activations.
        offload_activations: with it, what goes into each block waits in host memory for that.

    Returns:
        (B, C, T, h, w) in the latents' dtype.
    """
    same_batch = timesteps.shape == latents.shape[:1] == context.shape[:1]
    assert same_batch, "latents, timesteps and context differ in batch size"
    if latents.device.type == "mps":
        use_real_rotary(dit)
    dtype = dit.patch_embedding.weight.dtype
    x = dit.patch_embedding(latents.to(dtype))
    grid = x.shape[2:]
    x = x.flatten(2).transpose(1, 2).contiguous()
    time = _time_embedding(dit, timesteps)
    modulation = _apply_float32(dit.time_projection, time).unflatten(1, (6, dit.dim)).to(x.dtype)
    text = dit.text_embedding(context.to(dtype))
    rotary = _rotary_table(dit, grid).to(x.device)
    # By name: what all blocks share stays where it is, once; only x, which is each block's own, is moved away.
    shared = {"context": text, "t_mod": modulation, "freqs": rotary}
    for block in dit.blocks:
        x = gradient_checkpoint_forward(block, gradient_checkpointing, offload_activations, x, **shared)
    x = dit.head(x, time.to(x.dtype))
    return dit.unpatchify(x, grid).to(latents.dtype)


def _time_embedding(dit, timesteps):
    timesteps = timesteps.float()
    if timesteps.device.type == "mps" or getattr(dit, "has_real_rotary", False):
        sinusoid = sinusoidal_embedding_real(dit.freq_dim, timesteps)
    else:
        sinusoid = sinusoidal_embedding_1d(dit.freq_dim, timesteps)
    return _apply_float32(dit.time_embedding, sinusoid)


def _apply_float32(layers, x):
    with torch.autocast(x.device.type, enabled=False):
        for layer in layers:
            x = F.linear(x, layer.weight.float(), layer.bias.float()) if isinstance(layer, nn.Linear) else layer(x)
    return x


def _rotary_table(dit, grid):
    axes = [table[:length] for table, length in zip(dit.freqs, grid, strict=True)]
    views = [(-1, 1, 1), (1, -1, 1), (1, 1, -1)]
    parts = [axis.view(*view, axis.shape[-1]).expand(*grid, -1) for axis, view in zip(axes, views, strict=True)]
    return torch.cat(parts, dim=-1).flatten(0, 2).unsqueeze(1)
