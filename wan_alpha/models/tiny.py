"""The tiny Wan family: Wan2.1's architecture, key names and file layout at a size that trains on a laptop CPU.

Only the sizes differ from the real models (width 16 instead of 96, and so on); everything that loads, trains or runs
one runs the other. The shipped weights are made by ``examples/pretrain_tiny_wan.py``.
"""

from importlib.resources import files
from pathlib import Path

import torch
from diffsynth.models.wan_video_dit import WanModel
from diffsynth.models.wan_video_text_encoder import WanTextEncoder
from diffsynth.models.wan_video_vae import AttentionBlock, CausalConv3d, Resample, ResidualBlock, VideoVAE_
from torch import nn

VAE_SIZES = {"dim": 16, "z_dim": 16}
DIT_SIZES = {
    "dim": 128, "in_dim": 16, "ffn_dim": 512, "out_dim": 16, "text_dim": 64, "freq_dim": 256, "eps": 1e-6,
    "patch_size": (1, 2, 2), "num_heads": 4, "num_layers": 6, "has_image_input": False,
}  # fmt: skip
TEXT_ENCODER_SIZES = {"dim": 64, "dim_attn": 64, "dim_ffn": 128, "num_heads": 4, "num_layers": 2}
VOCABULARY_SIZE = 512


def tiny_wan_folder():
    """Folder of the shipped tiny family, laid out as a download of Wan2.1-T2V."""
    return Path(str(files("wan_alpha") / "assets" / "tiny_wan"))


@torch.no_grad()
def initialise_vae(vae):
    """Initialise a small Wan VAE so that it learns.

    The Wan VAE's skip path has no norm: with PyTorch's default initialisation a narrow one loses its signal. Here
    convolutions keep the variance (std = fan-in^-1/2, zero bias), look at the current frame only, and every residual
    branch and attention projection starts at zero, so that the network starts as a plain per-frame autoencoder.
    """
    for module in vae.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            fan_in = module.weight[0].numel() // (module.weight.shape[2] if module.weight.dim() == 5 else 1)
            nn.init.normal_(module.weight, std=fan_in**-0.5)
            nn.init.zeros_(module.bias)
            if isinstance(module, CausalConv3d) and module.weight.shape[2] > 1:
                module.weight[:, :, :-1] = 0
    for module in vae.modules():
        if isinstance(module, ResidualBlock):
            nn.init.zeros_(module.residual[-1].weight)
        elif isinstance(module, AttentionBlock):
            nn.init.zeros_(module.proj.weight)
        elif isinstance(module, Resample) and module.mode == "downsample3d":
            nn.init.zeros_(module.time_conv.weight)
            module.time_conv.weight[:, :, -1, 0, 0] = torch.eye(module.dim)
        elif isinstance(module, Resample) and module.mode == "upsample3d":
            nn.init.zeros_(module.time_conv.weight)
            module.time_conv.weight[:, :, -1, 0, 0] = torch.eye(module.dim).repeat(2, 1)
    return vae


def build_tiny_vae():
    """An untrained tiny ``VideoVAE_``, initialised by :func:`initialise_vae`."""
    return initialise_vae(VideoVAE_(**VAE_SIZES))


def build_tiny_dit():
    """An untrained tiny ``WanModel``; the output layer starts at zero, as Wan's own initialisation has it."""
    dit = WanModel(**DIT_SIZES)
    for module in dit.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    nn.init.zeros_(dit.head.head.weight)
    return dit


def build_tiny_text_encoder():
    """An untrained tiny UMT5-style ``WanTextEncoder``."""
    return WanTextEncoder(vocab=VOCABULARY_SIZE, **TEXT_ENCODER_SIZES)
