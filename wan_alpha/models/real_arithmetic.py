"""Wan's rotary and sinusoidal embeddings in float32 real numbers, for devices without float64 and complex tensors."""

import numpy as np
import torch
from diffsynth.models.wan_video_dit import SelfAttention


class RealRotarySelfAttention(SelfAttention):
    """Wan's self-attention with the rotation written out,

        (e, o) -> (e*cos - o*sin, e*sin + o*cos)    for each pair (e, o) of neighbouring channels (Su et al. 2021).

    `freqs` is (tokens, 1, head_size), cosine and sine of each pair side by side.
    """

    @classmethod
    def sharing(cls, attention):
        """The same layers under this class; nothing is copied."""
        with torch.device("meta"):
            real = cls(attention.dim, attention.num_heads)
        for name, layer in attention.named_children():
            setattr(real, name, layer)
        return real.train(attention.training)

    def forward(self, x, freqs):
        cosine, sine = freqs.unflatten(-1, (-1, 2)).unbind(-1)
        q = self._rotate(self.norm_q(self.q(x)), cosine, sine)
        k = self._rotate(self.norm_k(self.k(x)), cosine, sine)
        return self.o(self.attn(q, k, self.v(x)))

    def _rotate(self, x, cosine, sine):
        pairs = x.float().unflatten(-1, (self.num_heads, -1, 2))
        even, odd = pairs.unbind(-1)
        turned = torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), dim=-1)
        return turned.flatten(2).to(x.dtype)


def use_real_rotary(dit):
    """Give a ``WanModel`` real rotary embeddings, in place and once; its parameters stay the same objects."""
    if getattr(dit, "has_real_rotary", False):
        return
    dit.freqs = tuple(torch.stack((table.real, table.imag), dim=-1).flatten(1).float() for table in dit.freqs)
    for block in dit.blocks:
        block.self_attn = RealRotarySelfAttention.sharing(block.self_attn)
    dit.has_real_rotary = True


def sinusoidal_embedding_real(dim, timesteps):
    """[cos, sin] of t * 10000^(-i / (dim/2)): (B,) float32 -> (B, dim) float32.

    The angles are up to a thousand radians: they are taken in float64 on the host, where every machine has it.
    """
    half = dim // 2
    angles = np.outer(timesteps.detach().cpu().numpy().astype(np.float64), 10000.0 ** -(np.arange(half) / half))
    embedding = np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    return torch.from_numpy(embedding).to(timesteps.device)
