"""Two ways to follow a flow from noise to data: Euler, and UniPC of second order.

Both start at the first of their `timesteps` and take one velocity a step:

    for timestep in solver.timesteps: latents = solver.step(velocity(latents, timestep), latents)

with velocity = noise - latents and timestep = 1000*sigma.
"""

import math

import torch
from diffsynth.diffusion import FlowMatchScheduler

from wan_alpha.errors import ConfigError

# Wan's UniPC starts at the last of 1000 discrete noise levels, not at sigma 1, where the log-SNR is minus infinity.
_UNIPC_START = 0.999


class EulerSolver:
    """x_next = x + (sigma_next - sigma) * velocity, on diffsynth's schedule for Wan."""

    def __init__(self, num_steps, shift=5.0):
        self._scheduler = FlowMatchScheduler("Wan")
        self._scheduler.set_timesteps(num_steps, shift=shift)
        self.timesteps = self._scheduler.timesteps.float()
        self._index = 0

    def step(self, velocity, latents):
        timestep = self._scheduler.timesteps[self._index]
        self._index += 1
        return self._scheduler.step(velocity, timestep, latents)


class UniPCSolver:
    """UniPC-2 in data prediction with B(h) = exp(h) - 1 ("bh2"), for flow models (Zhao et al. 2023, UniPC).

    With alpha = 1 - sigma, lambda = log(alpha / sigma), x0 = x - sigma*velocity, h = lambda_next - lambda and
    D = x0_other - x0 for the data predicted at other points, at r = (lambda_other - lambda) / h,

        x_next = sigma_next/sigma * x + alpha_next * ((1 - e^-h) * x0 + (1 - e^-h) * sum_i rho_i * D_i / r_i)

    The predictor knows the step before (rho = 1/2); the corrector takes the same step again once the velocity at its
    end is known. The first and the last step are of first order.
    """

    def __init__(self, num_steps, shift=5.0):
        scheduler = FlowMatchScheduler("Wan")
        scheduler.set_timesteps(num_steps, denoising_strength=_UNIPC_START, shift=shift)
        self.timesteps = scheduler.timesteps.float()
        self._sigmas = [*scheduler.sigmas.tolist(), 0.0]
        self._index = 0
        self._start = self._data = self._data_before = None
        self._order = 1

    def step(self, velocity, latents):
        index, last = self._index, len(self.timesteps) - 1
        data = latents - self._sigmas[index] * velocity
        if index > 0:
            latents = self._advance(index - 1, self._start, self._data, self._data_before, self._order, data)
        self._data_before = self._data
        self._start, self._data = latents, data
        self._order = 1 if index in (0, last) else 2
        self._index += 1
        return self._advance(index, latents, data, self._data_before, self._order)

    def _advance(self, index, start, data, data_before, order, data_at_end=None):
        """From sigma `index` to the next; the corrector's step when the data predicted at the end is given."""
        sigma, sigma_next = self._sigmas[index], self._sigmas[index + 1]
        step = self._log_snr(index + 1) - self._log_snr(index)
        grown = -math.expm1(-step)
        if order == 2:
            ratio = (self._log_snr(index - 1) - self._log_snr(index)) / step
            before = (data_before - data) / ratio
        if data_at_end is None:
            curvature = 0.5 * before if order == 2 else 0.0
        elif order == 1:
            curvature = 0.5 * (data_at_end - data)
        else:
            weight_before, weight_end = self._corrector_weights(ratio, step)
            curvature = weight_before * before + weight_end * (data_at_end - data)
        return (sigma_next / sigma) * start + (1 - sigma_next) * grown * (data + curvature)

    def _log_snr(self, index):
        sigma = self._sigmas[index]
        return math.inf if sigma == 0 else math.log1p(-sigma) - math.log(sigma)

    @staticmethod
    def _corrector_weights(ratio, step):
        """rho of R rho = b, R = [[1, 1], [ratio, 1]]: what makes both points' quadratic error vanish."""
        first = math.expm1(-step) / -step - 1
        second = first / -step - 1 / 2
        b_first, b_second = first / math.expm1(-step), 2 * second / math.expm1(-step)
        weight_before = (b_second - b_first) / (ratio - 1)
        return weight_before, b_first - weight_before


SOLVERS = {"unipc": UniPCSolver, "euler": EulerSolver}


def make_solver(name, num_steps, shift=5.0):
    """A solver at its start.

    Args:
        name: "unipc" or "euler"; num_steps: model evaluations (twice as many with guidance); shift: timestep shift.

    Raises:
        ConfigError: unknown name, or a number of steps or shift that cannot be.
    """
    if name not in SOLVERS:
        raise ConfigError(f"solver {name!r} is unknown: choose one of {', '.join(SOLVERS)}")
    if num_steps < 1 or shift <= 0:
        raise ConfigError(f"num_steps = {num_steps} and shift = {shift}: give at least one step and a shift above 0")
    return SOLVERS[name](num_steps, shift)


def draw_noise(shape, seed):
    """Standard normal noise, float32, drawn on the CPU: the same on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
