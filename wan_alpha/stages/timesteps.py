"""Which timesteps stage 2 trains on, and how much each counts.

Everything is said of t in (0, 1], the share of noise before the schedule's shift (1 = noise), and of sigma, the share
after it. A drawn t is rounded up to the training grid, t = 1 - id/1000: the base model knows its timesteps.
"""

import math

import torch
from torch import Tensor

from wan_alpha.errors import ConfigError

NUM_TIMESTEPS = 1000
_MOST_DRAWS = 10_000
# Beyond these the density's map is no longer one to one (SD3, section 3.1).
MODE_SCALES = (-1.0, 2 / (math.pi - 2))


def draw_timestep_id(generator: torch.Generator, settings, ids: range = range(NUM_TIMESTEPS)) -> Tensor:
    """One timestep id of ``ids``, (1,); id 0 is pure noise, 999 the last.

        uniform:       id uniform over the grid, as in DiffSynth
        logit_normal:  t = sigmoid(n), n ~ Normal(logit_mean, logit_std)          (SD3, section 3.1)
        mode:          t = f(u), u uniform, see :func:`mode_map`                   (SD3, section 3.1)

    SD3: Esser et al. 2024, Scaling Rectified Flow Transformers for High-Resolution Image Synthesis, arXiv 2403.03206.

    Args:
        generator: source of randomness, on the CPU; settings: ObjectiveSettings.
        ids: what one expert is trained on, see :func:`expert_ids`; the distribution is cut to it.

    Raises:
        ConfigError: the distribution all but never falls into ``ids``.
    """
    if settings.timesteps == "uniform":
        return torch.randint(ids.start, ids.stop, (1,), generator=generator)
    for _ in range(_MOST_DRAWS):
        drawn = _draw(generator, settings)
        if int(drawn) in ids:
            return drawn
    raise ConfigError(
        f"objective.timesteps = {settings.timesteps!r} gave none of the expert's timesteps in {_MOST_DRAWS} draws; use "
        "uniform, or move logit_mean towards them"
    )


def _draw(generator, settings):
    if settings.timesteps == "logit_normal":
        share = torch.sigmoid(settings.logit_mean + settings.logit_std * torch.randn(1, generator=generator))
    else:
        share = mode_map(torch.rand(1, generator=generator), settings.mode_scale)
    return grid_id(share)


def expert_ids(timesteps: Tensor, boundary: float, expert: str | None) -> range:
    """The ids that an expert of a two-expert model is asked for when sampling.

    High noise is asked where the timestep is at least 1000 * boundary, low noise below it.

    Args:
        timesteps: of each id, falling from 1000, (1000,); boundary: in (0, 1).
        expert: "high_noise", "low_noise", or None for all.
    """
    num_high = int((timesteps.float() >= 1000 * boundary).sum())
    ranges = {"high_noise": range(num_high), "low_noise": range(num_high, len(timesteps)), None: range(len(timesteps))}
    return ranges[expert]


def mode_map(uniform: Tensor, scale: float) -> Tensor:
    """SD3's mode sampling with heavy tails: f(u) = 1 - u - scale * (cos^2(pi u / 2) - 1 + u).

    Args:
        uniform: u in [0, 1], any shape.
        scale: above 0 favours the middle, below 0 the ends; 0 is uniform. Within MODE_SCALES f falls from 1 to 0.
    """
    return 1 - uniform - scale * (torch.cos(math.pi / 2 * uniform).square() - 1 + uniform)


def grid_id(share: Tensor) -> Tensor:
    """Ids of t, the nearest on the grid that is not below it: floor((1 - t) * 1000), at most 999."""
    return ((1 - share) * NUM_TIMESTEPS).long().clamp(0, NUM_TIMESTEPS - 1)


def shift_for(num_tokens: int, settings) -> float:
    """The schedule's shift s, sigma = s t / (1 + (s - 1) t), for latents of so many tokens.

        fixed:   s = settings.shift
        tokens:  s = exp(m), m on the line through (n0, m0) and (n1, m1)           (Flux; its values: (256, 0.5), (4096,
                 1.15), as in black-forest-labs/flux, sampling.py, get_lin_function and time_shift)

    Args:
        num_tokens: of one sample, as the diffusion model sees it; settings: ObjectiveSettings: shift_from, shift_tokens
            (n0, n1), shift_logs (m0, m1).
    """
    if settings.shift_from == "fixed":
        return settings.shift
    (first, last), (low, high) = settings.shift_tokens, settings.shift_logs
    return math.exp(low + (high - low) * (num_tokens - first) / (last - first))


def loss_weights(sigmas: Tensor, bell: Tensor, settings) -> Tensor:
    """What each sample's mean squared error of the velocity counts.

        bell:        exp(-2 (sigma - 1/2)^2), less its least and scaled to a mean of 1 over the grid  (DiffSynth)
        none:        1
        sigma_sqrt:  1 / sigma^2                                   (SD3's, as in diffusers)
        cosmap:      2 / (pi (1 - 2 sigma + 2 sigma^2))            (SD3, section 3.1, as in diffusers)
        min_snr:     sigma^2 min(snr, gamma), snr = ((1 - sigma)/sigma)^2

    min_snr: Hang et al. 2023, Efficient Diffusion Training via Min-SNR Weighting Strategy, arXiv 2303.09556, weigh the
    error of the predicted data by min(snr, gamma); data = noisy - sigma * velocity, so the velocity's error counts
    sigma^2 times that. It is at most gamma / (1 + sqrt(gamma))^2.

    Args:
        sigmas: (B,), (0, 1]; bell: the bell's weights of the same timesteps, (B,).
        settings: ObjectiveSettings: weighting, min_snr_gamma.

    Returns:
        (B,), float32.
    """
    if settings.weighting == "bell":
        return bell.float()
    if settings.weighting == "none":
        return torch.ones_like(sigmas)
    if settings.weighting == "sigma_sqrt":
        return sigmas**-2
    if settings.weighting == "cosmap":
        return 2 / (math.pi * (1 - 2 * sigmas + 2 * sigmas.square()))
    return torch.minimum((1 - sigmas).square(), settings.min_snr_gamma * sigmas.square())
