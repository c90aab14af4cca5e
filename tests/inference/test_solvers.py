"""Solvers on flows whose solution is known."""

import math

import pytest
import torch

from wan_alpha.errors import ConfigError
from wan_alpha.inference.solvers import draw_noise, make_solver

DATA_STD = 0.8


def integrate(name, num_steps, velocity, start, shift=5.0):
    solver, x = make_solver(name, num_steps, shift), start
    for timestep in solver.timesteps:
        x = solver.step(velocity(x, float(timestep) / 1000), x)
    return x, float(solver.timesteps[0]) / 1000


def gaussian_velocity(x, sigma):
    """E[noise - data | x] for data of variance DATA_STD^2: the flow is linear, x(sigma) ~ std(sigma)."""
    return x * (sigma - (1 - sigma) * DATA_STD**2) / variance(sigma)


def variance(sigma):
    return (1 - sigma) ** 2 * DATA_STD**2 + sigma**2


def error_on_gaussian(name, num_steps):
    start = torch.ones(1, dtype=torch.float64)
    # Unshifted: with a shift the last step is long, and more steps are needed before the order shows.
    found, first = integrate(name, num_steps, gaussian_velocity, start, shift=1.0)
    return abs(float(found) - DATA_STD / math.sqrt(variance(first)))


@pytest.mark.parametrize("name", ["euler", "unipc"])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 10])
def test_one_data_point_is_hit_exactly(name, num_steps):
    data, noise = torch.tensor([0.7, -2.0]), torch.tensor([1.5, 0.1])
    found, _ = integrate(name, num_steps, lambda x, sigma: (x - data) / sigma, noise)
    assert torch.allclose(found, data, atol=1e-5)


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("unipc", 2)])
def test_order_of_convergence(name, order):
    errors = [error_on_gaussian(name, num_steps) for num_steps in (40, 80, 160)]
    for coarse, fine in zip(errors, errors[1:], strict=False):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.4)


def test_unipc_is_more_accurate_at_the_same_cost():
    assert error_on_gaussian("unipc", 20) < error_on_gaussian("euler", 20) / 5


def test_unipc_corrector_weights_solve_their_equations():
    """Second order means exact on data predictions that are linear in lambda, for uneven steps too."""
    from wan_alpha.inference.solvers import UniPCSolver

    solver = UniPCSolver(6)
    index = 2
    at = [solver._log_snr(i) for i in range(4)]
    data = [torch.tensor([0.2 + 0.5 * value], dtype=torch.float64) for value in at]
    start = torch.tensor([0.4], dtype=torch.float64)
    corrected = solver._advance(index, start, data[index], data[index - 1], 2, data[index + 1])
    # x/sigma obeys d(x/sigma)/dlambda = e^lambda * x0(lambda): integrate finely.
    grid = torch.linspace(at[index], at[index + 1], 20001, dtype=torch.float64)
    integral = torch.trapezoid(grid.exp() * (0.2 + 0.5 * grid), grid)
    expected = solver._sigmas[index + 1] * (start / solver._sigmas[index] + integral)
    assert torch.allclose(corrected, expected, atol=1e-6)


def test_schedule_is_shifted_towards_noise():
    for name, first in (("euler", 1000.0), ("unipc", 5 * 0.999 / (1 + 4 * 0.999) * 1000)):
        timesteps = make_solver(name, 4, shift=5.0).timesteps
        assert timesteps.dtype == torch.float32 and timesteps[0] == pytest.approx(first)
        assert (timesteps.diff() < 0).all() and timesteps[2] > 800


def test_noise_is_the_seeds_alone():
    assert torch.equal(draw_noise((1, 16, 2, 4, 4), 3), draw_noise((1, 16, 2, 4, 4), 3))
    assert not torch.equal(draw_noise((1, 16, 2, 4, 4), 3), draw_noise((1, 16, 2, 4, 4), 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("heun", 4), "choose one of unipc, euler"),
        (("euler", 0), "at least one step"),
        (("unipc", 4, 0.0), "a shift above 0"),
    ],
)
def test_impossible_solvers_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        make_solver(*arguments)
