"""Densities against their closed-form quantiles, weights against the values that their sources give."""

import math
from statistics import NormalDist

import pytest
import torch

from wan_alpha.errors import ConfigError
from wan_alpha.stages.flow_objective import draw_batch, draw_sample, noisy_batch, training_scheduler, velocity_loss
from wan_alpha.stages.timesteps import MODE_SCALES, draw_timestep_id, grid_id, loss_weights, mode_map, shift_for
from wan_alpha.training.config import load_recipe
from wan_alpha.training.recipes import ObjectiveSettings, TrainDiTRecipe

NUM_DRAWS = 20000
CRITICAL = 1.63 / math.sqrt(NUM_DRAWS)  # Kolmogorov-Smirnov, 1%


def drawn_shares(settings):
    generator = torch.Generator().manual_seed(0)
    ids = torch.cat([draw_timestep_id(generator, settings) for _ in range(NUM_DRAWS)])
    assert 0 <= int(ids.min()) and int(ids.max()) < 1000
    return (1 - ids / 1000).double()


def logit_normal_share_below(t, mean, std):
    return NormalDist(mean, std).cdf(math.log(t / (1 - t))) if t < 1 else 1.0


def mode_share_below(t, scale):
    """The map falls, so t is below f(u) for all larger u: found by bisection."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        value = float(mode_map(torch.tensor(middle, dtype=torch.float64), scale))
        low, high = (middle, high) if value > t else (low, middle)
    return 1 - low


@pytest.mark.parametrize(
    "settings, share_below",
    [
        ({}, lambda t: t),
        ({"timesteps": "logit_normal"}, lambda t: logit_normal_share_below(t, 0, 1)),
        (
            {"timesteps": "logit_normal", "logit_mean": -0.5, "logit_std": 0.6},
            lambda t: logit_normal_share_below(t, -0.5, 0.6),
        ),
        ({"timesteps": "mode"}, lambda t: mode_share_below(t, 1.29)),
        ({"timesteps": "mode", "mode_scale": -0.8}, lambda t: mode_share_below(t, -0.8)),
        ({"timesteps": "mode", "mode_scale": 0}, lambda t: t),
    ],
)
def test_timesteps_have_their_distribution(settings, share_below):
    """At every point of the grid the share of draws up to it is the distribution's."""
    shares = drawn_shares(ObjectiveSettings(**settings))
    grid = torch.arange(1, 1001) / 1000
    found = torch.searchsorted(shares.sort().values, grid.double() + 5e-4) / NUM_DRAWS
    expected = torch.tensor([share_below(float(t)) for t in grid])
    assert (found - expected).abs().max() < CRITICAL
    for quantile in (0.05, 0.5, 0.95):
        place = int((expected >= quantile).nonzero()[0])
        assert float(shares.quantile(quantile)) == pytest.approx(float(grid[place]), abs=0.02)


@pytest.mark.parametrize("scale", [MODE_SCALES[0], -0.3, 0.0, 1.29, MODE_SCALES[1]])
def test_the_mode_map_falls_from_one_to_zero(scale):
    values = mode_map(torch.linspace(0, 1, 1001, dtype=torch.float64), scale)
    assert float(values[0]) == pytest.approx(1) and float(values[-1]) == pytest.approx(0, abs=1e-12)
    assert (values.diff() < 1e-9).all()


def test_shares_go_up_to_the_grid():
    shares = torch.tensor([1.0, 0.9995, 0.9985, 0.5, 1e-6, 0.0], dtype=torch.float64)
    assert grid_id(shares).tolist() == [0, 0, 1, 500, 999, 999]


def test_the_default_draws_what_it_always_drew():
    generator = torch.Generator().manual_seed(77)
    ids, noise = torch.randint(0, 1000, (1,), generator=generator), torch.randn(1, 2, 1, 2, 2, generator=generator)
    drops = torch.rand(1, generator=generator) < 0.4
    draw = draw_sample((2, 1, 2, 2), 77, ObjectiveSettings(caption_dropout=0.4))
    assert torch.equal(draw.timestep_ids, ids) and torch.equal(draw.noise, noise)
    assert torch.equal(draw.drops_caption, drops)


@pytest.mark.parametrize("timesteps", ["uniform", "logit_normal", "mode"])
def test_a_draw_follows_from_the_samples_seed_alone(timesteps):
    settings = ObjectiveSettings(timesteps=timesteps, caption_dropout=0.5)
    latents = torch.zeros(3, 2, 1, 2, 2)
    together = draw_batch(latents, torch.tensor([4, 5, 6]), settings)
    alone = draw_batch(latents[:1], torch.tensor([5]), settings)
    torch.manual_seed(3)
    assert torch.equal(draw_batch(latents[:1], torch.tensor([5]), settings).timestep_ids, alone.timestep_ids)
    for name in ("timestep_ids", "noise", "drops_caption"):
        assert torch.equal(getattr(together, name)[1:2], getattr(alone, name))


@pytest.mark.parametrize(
    "num_tokens, expected", [(256, math.exp(0.5)), (4096, math.exp(1.15)), (2176, math.exp(0.825)), (16, 1.583)]
)
def test_the_shift_follows_flux_by_tokens(num_tokens, expected):
    assert shift_for(num_tokens, ObjectiveSettings(shift_from="tokens")) == pytest.approx(expected, rel=1e-3)
    assert shift_for(num_tokens, ObjectiveSettings(shift=3)) == 3
    wan = ObjectiveSettings(shift_from="tokens", shift_tokens=(1445, 32760), shift_logs=(math.log(3), math.log(5)))
    assert shift_for(1445, wan) == pytest.approx(3) and shift_for(32760, wan) == pytest.approx(5)


SIGMAS = torch.tensor([1.0, 0.9, 0.5, 0.3, 0.1])


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"weighting": "none"}, [1, 1, 1, 1, 1]),
        ({"weighting": "sigma_sqrt"}, [1, 1.234568, 4, 11.11111, 100]),
        ({"weighting": "cosmap"}, [0.6366198, 0.7763656, 1.2732395, 1.0976203, 0.7763656]),
        ({"weighting": "min_snr"}, [0, 0.01, 0.25, 0.45, 0.05]),
        ({"weighting": "min_snr", "min_snr_gamma": 1}, [0, 0.01, 0.25, 0.09, 0.01]),
        ({}, [7, 7, 7, 7, 7]),
    ],
)
def test_weights_are_those_of_their_sources(changes, expected):
    weights = loss_weights(SIGMAS, torch.full((5,), 7.0), ObjectiveSettings(**changes))
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float32), rtol=1e-5, atol=1e-7)


def test_cosmap_is_a_density():
    sigmas = torch.linspace(0, 1, 100001, dtype=torch.float64)
    weights = loss_weights(sigmas, sigmas, ObjectiveSettings(weighting="cosmap"))
    assert float(torch.trapezoid(weights, sigmas)) == pytest.approx(1)


def test_min_snr_weighs_the_error_of_the_predicted_data():
    """The velocity's weighted error is Hang et al.'s min(snr, gamma) times that of the data it predicts."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(3, 2, 1, 2, 2, generator=generator)
    settings = ObjectiveSettings(weighting="min_snr")
    draw = draw_batch(latents, torch.tensor([1, 2, 3]), settings)
    batch = noisy_batch(latents, draw, torch.ones(3, 1, 2, 2), training_scheduler(5.0), settings)
    predicted = batch.velocity + torch.randn(latents.shape, generator=generator)
    sigmas = (batch.timesteps / 1000).view(-1, 1, 1, 1, 1)
    data_errors = (batch.noisy - sigmas * predicted - latents).square().flatten(1).mean(dim=1)
    snr = ((1 - sigmas) / sigmas).square().flatten()
    expected = (snr.clamp(max=5) * data_errors).mean()
    torch.testing.assert_close(velocity_loss(predicted, batch)["total"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"logit_std": "0.5"}, "logit_std has no effect with timesteps = 'uniform': .* choose logit_normal"),
        ({"timesteps": "logit_normal", "mode_scale": "1"}, "mode_scale has no effect"),
        ({"timesteps": "mode", "mode_scale": "2"}, "less than or equal to 1.75"),
        ({"shift_from": "tokens", "shift": "3"}, "shift has no effect with shift_from = 'tokens'"),
        ({"shift_logs": "0.5,2"}, "shift_logs has no effect with shift_from = 'fixed'"),
        ({"shift_from": "tokens", "shift_tokens": "4096,256"}, "shift_tokens = 4096, 256"),
        ({"min_snr_gamma": "1"}, "min_snr_gamma has no effect with weighting = 'bell'"),
    ],
)
def test_options_without_effect_are_refused(changes, message):
    given = {"output_dir": "out", "model.wan": "wan", "cache": "cache", "training.max_steps": 5}
    with pytest.raises(ConfigError, match=message):
        load_recipe(TrainDiTRecipe, overrides=given | {f"objective.{name}": value for name, value in changes.items()})
