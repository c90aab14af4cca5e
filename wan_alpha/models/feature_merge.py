"""FeatureMergeBlock: the features of the colour and the alpha video become one latent (Wan-Alpha, Section 3.1)."""

import torch
from diffsynth.models.wan_video_vae import AttentionBlock, CausalConv3d, ResidualBlock, RMS_norm
from torch import nn

from wan_alpha.errors import ConfigError
from wan_alpha.models.causal_vae import run_blocks


class FeatureMergeBlock(nn.Module):
    """Merge encoder features of a rendered colour video and its alpha video into raw latents.

    Concatenate -> causal 1x1x1 convolution -> Res, Attn, Res, Attn, Res -> RMS norm, SiLU, causal 3x3x3 convolution.
    The blocks are the Wan VAE's own; there is no reparameterisation.

    Args:
        feature_channels: channels of each stream's features (384 for Wan2.1, 640 for Wan2.2).
        width: channels inside the block (384 as released, for Wan2.1).
        latent_channels: channels of the latents (16 for Wan2.1, 48 for Wan2.2).
    """

    def __init__(self, feature_channels=384, width=384, latent_channels=16):
        super().__init__()
        self.conv1 = CausalConv3d(2 * feature_channels, width, 1)
        self.middle = nn.Sequential(
            ResidualBlock(width, width), AttentionBlock(width), ResidualBlock(width, width), AttentionBlock(width),
            ResidualBlock(width, width),
        )  # fmt: skip
        self.head = nn.Sequential(
            RMS_norm(width, images=False), nn.SiLU(), CausalConv3d(width, latent_channels, 3, padding=1)
        )

    def forward(self, features_rgb, features_alpha, state=None):
        """Merge (B, C, t, h, w) features of both streams into raw latents (B, latent_channels, t, h, w).

        ``state`` is the clip's :class:`~wan_alpha.models.causal_vae.ClipState` when the clip comes in chunks.
        """
        x = self.conv1(torch.cat([features_rgb, features_alpha], dim=1))
        return run_blocks(self.head, run_blocks(self.middle, x, state), state)

    @torch.no_grad()
    def start_from_vae(self, vae):
        """Begin as the base VAE itself: the merged latents are exactly its mean for the rendered colour video.

        The first convolution is [I, 0], every residual branch and attention projection ends in zeros, the norm is the
        encoder head's, and the last convolution is the encoder head's followed by the VAE's ``conv1`` (1x1x1), whose
        first rows give the mean.

        Args:
            vae: the base ``VideoVAE_`` or ``VideoVAE38_``.

        Raises:
            ConfigError: the block is not as wide as the encoder's features.
        """
        width, double = self.conv1.weight.shape[:2]
        if double != 2 * width:
            raise ConfigError(
                f'init = "from_vae" needs merge_width = {double // 2} (the encoder\'s feature channels), got {width}; '
                f'use that width or init = "random"'
            )
        self.conv1.weight.zero_()
        self.conv1.weight[:, :width, 0, 0, 0] = torch.eye(width)
        self.conv1.bias.zero_()
        for block in self.middle:
            last = block.residual[-1] if isinstance(block, ResidualBlock) else block.proj
            last.weight.zero_()
            last.bias.zero_()
        head_norm, head_conv = vae.encoder.head[0], vae.encoder.head[2]
        latent_channels = self.head[2].weight.shape[0]
        project, offset = vae.conv1.weight[:latent_channels, :, 0, 0, 0], vae.conv1.bias[:latent_channels]
        self.head[0].gamma.copy_(head_norm.gamma)
        self.head[2].weight.copy_(torch.einsum("oc,cithw->oithw", project, head_conv.weight))
        self.head[2].bias.copy_(project @ head_conv.bias + offset)
