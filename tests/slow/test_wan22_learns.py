"""The RGBA VAE on a 48-channel VAE learns transparency: a narrow base learns stills first, then stage 1 runs on it."""

import math

import pytest
import torch
from safetensors.torch import save_file

from wan_alpha.alpha.composite import BACKGROUND_COLORS, hard_render
from wan_alpha.data.synthetic import ShapeClip, draw_shape_clip
from wan_alpha.losses.reconstruction import RGBAReconstructionLoss
from wan_alpha.metrics.psnr import psnr
from wan_alpha.models.base_vae import WAN22_VAE
from wan_alpha.models.causal_vae import decoder_frames, encoder_features, run_blocks
from wan_alpha.models.rgba_vae import RGBAlphaVAE
from wan_alpha.models.tiny import initialise_vae

NUM_BASE_STEPS, NUM_STEPS = 400, 100
BASE_BATCH, BATCH, SIZE = 4, 2, 64


def stills(seeds):
    """Straight rgb (B, 3, 1, 64, 64) in [-1, 1] and alpha (B, 1, 1, 64, 64) of one shape each."""
    drawn = []
    for seed in seeds:
        shape, color = ("circle", "square", "star")[seed % 3], ("red", "blue", "green", "yellow")[seed % 4]
        clip = ShapeClip(shape, color, "large", "solid", "moving left")
        drawn.append(draw_shape_clip(clip, 1, SIZE, SIZE, torch.Generator().manual_seed(seed)))
    return tuple(torch.stack(stream) for stream in zip(*drawn, strict=True))


def random_colors(count):
    return BACKGROUND_COLORS[torch.randint(8, (count,))]


def train_base(vae):
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3, betas=(0.9, 0.99))
    for step in range(NUM_BASE_STEPS):
        rate = min(1, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * step / NUM_BASE_STEPS))
        optimizer.param_groups[0]["lr"] = 2e-3 * rate
        video = hard_render(*stills(range(step * BASE_BATCH, (step + 1) * BASE_BATCH)), random_colors(BASE_BATCH))
        mean = vae.conv1(run_blocks(vae.encoder.head, encoder_features(vae.encoder, video)))[:, : vae.z_dim]
        error = decoder_frames(vae.decoder, vae.conv2(mean)) - video
        (error.square().mean() + 0.1 * error.abs().mean()).backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return vae


@torch.no_grad()
def held_out_alpha_psnr(vae):
    rgb, alpha = stills(range(9000, 9004))
    _, predicted = vae.decode(vae.encode(hard_render(rgb, alpha, BACKGROUND_COLORS[:4]), alpha))
    return float(psnr(predicted, alpha))


@pytest.mark.slow
def test_alpha_psnr_rises(tmp_path):
    torch.manual_seed(0)
    base = train_base(initialise_vae(WAN22_VAE.build(16, 16)))
    save_file(base.state_dict(), tmp_path / "Wan2.2_VAE.safetensors")
    vae = RGBAlphaVAE.from_pretrained(tmp_path / "Wan2.2_VAE.safetensors", lora_rank=16).set_trainable("full")
    loss = RGBAReconstructionLoss(perceptual="none")
    optimizer = torch.optim.AdamW([p for p in vae.parameters() if p.requires_grad], lr=2e-3)
    figures = [held_out_alpha_psnr(vae)]
    for step in range(NUM_STEPS):
        rgb, alpha = stills(range(step * BATCH, (step + 1) * BATCH))
        hard, soft = random_colors(BATCH), random_colors(BATCH)
        prediction = vae.decode_raw(vae.encode_raw(hard_render(rgb, alpha, hard), alpha))
        loss(*prediction, rgb, alpha, hard_background=hard, soft_background=soft)["total"].backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 25 == 0:
            figures.append(held_out_alpha_psnr(vae))
    print("alpha PSNR on held-out stills, dB, every 25 steps:", [round(figure, 1) for figure in figures])
    assert figures[-1] > figures[0] + 6
