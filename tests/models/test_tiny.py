"""The shipped tiny family is a Wan2.1 in everything but size, and good enough to learn on."""

import pytest
import torch

from wan_alpha.alpha.composite import BACKGROUND_COLORS, soft_render
from wan_alpha.data.synthetic import draw_shape_clip, random_shape_clip
from wan_alpha.metrics.psnr import psnr
from wan_alpha.models.base_vae import WAN21_VAE, load_base_vae
from wan_alpha.models.causal_vae import decoder_frames, encoder_features, run_blocks
from wan_alpha.models.rgba_vae import RGBAlphaVAE
from wan_alpha.models.tiling import Tiling
from wan_alpha.models.tiny import build_tiny_vae, tiny_wan_folder
from wan_alpha.models.wan import encode_prompts, load_wan, predict_velocity

MEGABYTE = 1e6
RGB_PSNR = 30.0  # dB


@pytest.fixture(scope="module")
def vae():
    return load_base_vae(tiny_wan_folder() / "Wan2.1_VAE.pth")


def held_out_clip(index):
    """A clip from a seed that neither pretraining nor the demo draws from."""
    generator = torch.Generator().manual_seed(77_000_000 + index)
    rgb, alpha = draw_shape_clip(random_shape_clip(generator), 9, 64, 64, generator)
    return rgb[None], alpha[None]


def encode(vae, video):
    return vae.conv1(run_blocks(vae.encoder.head, encoder_features(vae.encoder, video)))[:, : vae.z_dim]


def test_layout_and_size():
    folder = tiny_wan_folder()
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {
        "Wan2.1_VAE.pth", "config.json", "diffusion_pytorch_model.safetensors", "google/umt5-xxl/tokenizer.json",
        "google/umt5-xxl/tokenizer_config.json", "models_t5_umt5-xxl-enc-bf16.pth", "pretraining.json",
    } <= names  # fmt: skip
    assert sum((folder / name).stat().st_size for name in names) <= 12 * MEGABYTE


@pytest.fixture(scope="module")
def encoded(vae):
    """Held-out clips, one over each background, and what the VAE makes of them: pairs of video and raw latents."""
    clips = [soft_render(*held_out_clip(index), color) for index, color in enumerate(BACKGROUND_COLORS)]
    with torch.no_grad():
        return [(clip, encode(vae, clip)) for clip in clips]


@torch.no_grad()
def test_vae_reaches_its_figure_on_held_out_clips(vae, encoded):
    errors = []
    for clip, raw in encoded:
        frames = decoder_frames(vae.decoder, vae.conv2(raw)).clamp(-1, 1)
        errors.append(10 ** (-psnr((frames + 1) / 2, (clip + 1) / 2) / 10))
    mean_psnr = -10 * torch.tensor(errors).mean().log10().item()
    assert mean_psnr >= RGB_PSNR


def test_latents_have_the_statistics_of_wans(encoded):
    """Wan's normalisation constants must fit, or the diffusion model would see badly scaled latents."""
    raw = torch.cat([raw for _, raw in encoded])
    mean, std = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in (WAN21_VAE.latent_mean, WAN21_VAE.latent_std))
    latents = (raw - mean) / std
    assert latents.mean().abs() < 0.5 and 0.5 < latents.std() < 1.5


@torch.no_grad()
def test_tiles_change_little(vae):
    rgba = RGBAlphaVAE.from_pretrained(tiny_wan_folder() / "Wan2.1_VAE.pth", lora_rank=4)
    rgb, alpha = (stream[:, :, :5] for stream in held_out_clip(1))
    video = soft_render(rgb, alpha, BACKGROUND_COLORS[1])
    video, alpha = (torch.nn.functional.interpolate(x[0], scale_factor=1.5)[None] for x in (video, alpha))
    latents = rgba.encode(video, alpha)
    whole = rgba.decode(latents)[0]
    rgba.tiling = Tiling(size=64, overlap=32)
    assert psnr((rgba.decode(latents)[0] + 1) / 2, (whole + 1) / 2) > 30


@torch.no_grad()
def test_prompts_steer_the_shipped_diffusion_model():
    pipe = load_wan(tiny_wan_folder())
    contexts = encode_prompts(pipe, ["A large solid red circle.", "A small translucent blue star.", ""])
    assert contexts.shape[:2] == (3, 64)
    latents = torch.randn(1, 16, 3, 8, 8, generator=torch.Generator().manual_seed(0)).expand(3, -1, -1, -1, -1)
    velocity = predict_velocity(pipe.dit, latents, torch.full((3,), 900.0), contexts)
    assert velocity.isfinite().all()
    assert (velocity[0] - velocity[1]).abs().mean() > 0.01
    assert pipe.tokenizer("Ünïcode 🎬", return_mask=True)[1].sum() > 1


def test_an_untrained_vae_keeps_its_signal():
    """The initialisation that makes a narrow Wan VAE learn: the skip path neither dies nor explodes."""
    torch.manual_seed(0)
    vae, video = build_tiny_vae(), torch.randn(1, 3, 5, 32, 32)
    with torch.no_grad():
        features = encoder_features(vae.encoder, video)
        frames = decoder_frames(vae.decoder, vae.conv2(encode(vae, video)))
    assert 0.1 < features.std() < 10 and 0.05 < frames.std() < 20
