"""A narrow Wan2.2 VAE whose every weight matters, for comparisons."""

import torch
from torch import nn

from wan_alpha.models.base_vae import WAN22_VAE


def lively_wan22_vae(width=4, decoder_width=8, seed=0):
    """A ``VideoVAE38_`` with random weights that keep the signal's size, temporal taps and biases included: with
    PyTorch's own start, or zeroed branches, an error in a branch could hide."""
    vae = WAN22_VAE.build(width, decoder_width).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for module in vae.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5, generator=generator)
            nn.init.normal_(module.bias, std=0.1, generator=generator)
    return vae
