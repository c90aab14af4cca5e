"""LoRA on every convolution of a frozen Wan decoder, composed in weight space.

A LoRA convolution is usually run as a second convolution with ``rank`` channels at full resolution. The weights are
far smaller than the activations here, so ``W + s·B·A`` is composed once per step and a single convolution runs; both
decoders share one frozen base.
"""

import math

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from wan_alpha.models.causal_vae import decoder_frames, decoder_parts, frames_of_places, run_part


def decoder_convolutions(decoder):
    """Names and modules of all Conv2d and Conv3d of a decoder, in definition order."""
    return {name: module for name, module in decoder.named_modules() if isinstance(module, (nn.Conv2d, nn.Conv3d))}


class LoRAPair(nn.Module):
    """The two factors of one convolution's LoRA: down (rank, in, *kernel) and up (out, rank, 1, ...)."""

    def __init__(self, conv, rank):
        super().__init__()
        weight = conv.weight
        self.lora_A = nn.Parameter(torch.empty(rank, *weight.shape[1:], dtype=torch.float32))
        self.lora_B = nn.Parameter(torch.zeros(weight.shape[0], rank, *[1] * (weight.dim() - 2), dtype=torch.float32))

    def delta(self):
        """B·A as a convolution weight (out, in, *kernel)."""
        return (self.lora_B.flatten(1) @ self.lora_A.flatten(1)).unflatten(1, self.lora_A.shape[1:])


class DecoderLoRA(nn.Module):
    """LoRA for every convolution of one decoder: ``W' = W + (alpha / rank)·B·A``.

    Args:
        decoder: the frozen decoder (not held, only measured).
        rank: inner size; alpha: numerator of the scale (1 as released).
        generator: source of the random start of A (Kaiming uniform, as PEFT); B starts at zero.
    """

    def __init__(self, decoder, rank=128, alpha=1.0, generator=None):
        super().__init__()
        self.rank, self.alpha = rank, alpha
        # ModuleDict keys may not hold dots.
        self.pairs = nn.ModuleDict(
            {name.replace(".", "/"): LoRAPair(conv, rank) for name, conv in decoder_convolutions(decoder).items()}
        )
        for pair in self.pairs.values():
            nn.init.kaiming_uniform_(pair.lora_A, a=math.sqrt(5), generator=generator)

    def named_pairs(self):
        """Yield (convolution name, LoRAPair)."""
        for key, pair in self.pairs.items():
            yield key.replace("/", "."), pair

    def compose(self, decoder):
        """The decoder's effective convolution weights, name to tensor, in the decoder's dtype; differentiable.

        The sum is formed in float32, also under autocast, whose B·A in bf16 would lose what small updates add.
        """
        scale = self.alpha / self.rank
        weights = {}
        with torch.autocast(self.pairs["conv1"].lora_A.device.type, enabled=False):
            for name, pair in self.named_pairs():
                base = decoder.get_submodule(name).weight
                weights[f"{name}.weight"] = (base + scale * pair.delta()).to(base.dtype)
        return weights


class WanDecoder(nn.Module):
    """A frozen ``Decoder3d`` or ``Decoder3d_38`` that runs with weights composed elsewhere."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, z, state=None):
        return decoder_frames(self.decoder, z, state)

    def run(self, weights, z, state=None):
        """Decode (B, C, n, h, w) with ``weights`` in place of the base's; see :func:`decoder_frames`."""
        replaced = {f"decoder.{name}": weight for name, weight in weights.items()}
        return torch.func.functional_call(self, replaced, (z, state))

    def run_checkpointed(self, weights, z):
        """:meth:`run` over a whole clip; the backward pass computes each part again from what went into it.

        Args:
            weights: as there; z: (B, C, n, h, w).
        """
        x = z
        for name, part in decoder_parts(self.decoder):
            own = {key: weight for key, weight in weights.items() if key.startswith(f"{name}.")}
            names = tuple(f"part.{key.removeprefix(name + '.')}" for key in own)
            # The weights go in with x: by the time of the backward pass a call with replaced ones would have ended.
            x = checkpoint(_run_part, part, names, x, *own.values(), use_reentrant=False)
        return frames_of_places(x)


class _Part(nn.Module):
    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, x):
        return run_part(self.part, x)


def _run_part(part, names, x, *weights):
    return torch.func.functional_call(_Part(part), dict(zip(names, weights, strict=True)), (x,))
