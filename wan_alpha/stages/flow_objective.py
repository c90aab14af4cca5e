"""The rectified-flow objective of stage 2, a batch of independent samples at a time, on diffsynth's scheduler."""

from dataclasses import dataclass

import torch
from diffsynth.diffusion import FlowMatchScheduler
from torch import Tensor

from wan_alpha.alpha.masks import shifted_noise
from wan_alpha.stages.timesteps import NUM_TIMESTEPS, draw_timestep_id, loss_weights
from wan_alpha.training.recipes import ObjectiveSettings


@dataclass(frozen=True)
class Draw:
    """The random part of a batch: timestep ids (B,), noise (B, C, t, h, w), and whose caption is dropped, (B,) bool."""

    timestep_ids: Tensor
    noise: Tensor
    drops_caption: Tensor


@dataclass(frozen=True)
class NoisyBatch:
    """What the model sees and what it is asked for.

    Attributes:
        noisy: (1 - sigma)*latents + sigma*noise, (B, C, t, h, w).
        velocity: noise - latents, (B, C, t, h, w).
        timesteps: 1000*sigma, (B,), float32.
        weights: (B,), float32.
    """

    noisy: Tensor
    velocity: Tensor
    timesteps: Tensor
    weights: Tensor


def training_scheduler(shift: float, scheduler: FlowMatchScheduler | None = None) -> FlowMatchScheduler:
    """diffsynth's Wan scheduler (`scheduler`, or a new one) on its 1000 training timesteps with their weights."""
    scheduler = scheduler or FlowMatchScheduler("Wan")
    scheduler.set_timesteps(NUM_TIMESTEPS, training=True, shift=shift)
    return scheduler


def draw_sample(
    shape: tuple[int, ...],
    sample_seed: int,
    settings: ObjectiveSettings | None = None,
    ids: range = range(NUM_TIMESTEPS),
) -> Draw:
    """Everything random about one sample, (C, t, h, w), from its seed alone: a Draw with a batch of one.

    The generator lives on the CPU, so that a sample sees the same noise on every device.

    Args:
        settings: how timesteps are drawn and caption_dropout are read; the defaults if None.
        ids: timestep ids to draw from.
    """
    settings = settings or ObjectiveSettings()
    generator = torch.Generator().manual_seed(int(sample_seed))
    timestep_ids = draw_timestep_id(generator, settings, ids)
    noise = torch.randn((1, *shape), generator=generator)
    drops_caption = torch.rand(1, generator=generator) < settings.caption_dropout
    return Draw(timestep_ids, noise, drops_caption)


def draw_batch(
    latents: Tensor,
    sample_seeds: Tensor,
    settings: ObjectiveSettings | None = None,
    ids: range = range(NUM_TIMESTEPS),
) -> Draw:
    """`draw_sample` for each sample of latents (B, C, t, h, w), on their device."""
    samples = [draw_sample(tuple(latents.shape[1:]), seed, settings, ids) for seed in sample_seeds.tolist()]
    timestep_ids, noise, drops_caption = (
        torch.cat([getattr(sample, name) for sample in samples]) for name in ("timestep_ids", "noise", "drops_caption")
    )
    return Draw(timestep_ids, noise.to(latents.device), drops_caption.to(latents.device))


def noisy_batch(
    latents: Tensor, draw: Draw, ellipse: Tensor, scheduler: FlowMatchScheduler, settings: ObjectiveSettings
) -> NoisyBatch:
    """Mix latents and noise at each sample's own sigma.

        noise' = noise + (1 - G)*noise_shift        (Wan-Alpha v2)
        noisy = (1 - sigma)*latents + sigma*noise',  velocity = noise' - latents        (rectified flow)

    Args:
        latents: normalised, (B, C, t, h, w).
        draw: from :func:`draw_batch`.
        ellipse: G, (B, t, h, w), [0, 1].
        scheduler: from :func:`training_scheduler`.
        settings: noise_shift and the weighting are read.
    """
    latents = latents.float()
    noise = draw.noise.to(latents)
    if settings.noise_shift:
        noise = shifted_noise(noise, ellipse.to(noise), settings.noise_shift)
    ids = draw.timestep_ids
    # Timesteps stay float32: bfloat16 would merge the 1000 of them into 294.
    timesteps = scheduler.timesteps[ids].float().to(latents.device)
    weights = loss_weights(scheduler.sigmas[ids].float(), scheduler.linear_timesteps_weights[ids], settings)
    sigmas = scheduler.sigmas[ids].float().to(latents.device).view(-1, 1, 1, 1, 1)
    return NoisyBatch(
        noisy=(1 - sigmas) * latents + sigmas * noise,
        velocity=noise - latents,
        timesteps=timesteps,
        weights=weights.to(latents.device),
    )


def velocity_loss(predicted: Tensor, batch: NoisyBatch) -> dict[str, Tensor]:
    """Weighted and plain mean squared error of the velocity.

        total = mean over samples of weight * mse(sample),  velocity_mse = mean over samples of mse(sample)

    For one sample, total is diffsynth's FlowMatchSFTLoss.

    Args:
        predicted: (B, C, t, h, w).

    Returns:
        {"total", "velocity_mse"}, float32 scalars; velocity_mse is detached.
    """
    errors = (predicted.float() - batch.velocity.float()).square().flatten(1).mean(dim=1)
    return {"total": (errors * batch.weights).mean(), "velocity_mse": errors.detach().mean()}
