"""Sampling: seeds, guidance, experts, shifted noise."""

import pytest
import torch
from miniature_wan import DIT_SIZES, make_dit

from wan_alpha.errors import ConfigError, NonFiniteError
from wan_alpha.inference import sampler
from wan_alpha.inference.sampler import sample_latents
from wan_alpha.inference.solvers import draw_noise

SHAPE = (1, 16, 2, 4, 4)


@pytest.fixture(scope="module")
def dit():
    return make_dit()


@pytest.fixture
def calls(monkeypatch):
    """Replaces the model by a fixed velocity per context, and records who was asked what."""
    record = []

    def velocity(model, latents, timesteps, context, **options):
        assert timesteps.dtype == torch.float32 and timesteps.shape == latents.shape[:1]
        record.append((model, float(timesteps[0]), float(context.mean())))
        return torch.full_like(latents, float(context.mean()))

    monkeypatch.setattr(sampler, "predict_velocity", velocity)
    return record


def context(value=None, batch=1):
    shape = (batch, 5, DIT_SIZES["text_dim"])
    return torch.randn(shape, generator=torch.Generator().manual_seed(5)) if value is None else torch.full(shape, value)


@pytest.mark.parametrize("solver", ["euler", "unipc"])
def test_seeds_reproduce(dit, solver):
    sample = [sample_latents(dit, context(), SHAPE, num_steps=3, solver=solver, seed=seed) for seed in (1, 1, 2)]
    assert sample[0].shape == SHAPE and sample[0].dtype == torch.float32
    assert torch.equal(sample[0], sample[1]) and not torch.allclose(sample[0], sample[2])


def test_guidance_extrapolates_and_one_asks_once(dit, calls):
    start = draw_noise(SHAPE, 0)
    done = []
    plain = sample_latents(
        dit, context(2.0), SHAPE, num_steps=3, solver="euler", callback=lambda step, total: done.append((step, total))
    )
    assert len(calls) == 3 and done == [(1, 3), (2, 3), (3, 3)]
    assert torch.allclose(plain, start - 2.0, atol=1e-5)
    calls.clear()
    guided = sample_latents(
        dit, context(2.0), SHAPE, num_steps=3, solver="euler", guidance=4.0, negative_context=context(1.0)
    )
    assert len(calls) == 6
    assert torch.allclose(guided, start - (1.0 + 4.0 * (2.0 - 1.0)), atol=1e-5)
    with pytest.raises(ConfigError, match="needs a negative prompt"):
        sample_latents(dit, context(), SHAPE, num_steps=3, guidance=4.0)


def test_one_negative_context_serves_a_batch(dit):
    found = sample_latents(
        dit, context(batch=2), (2, *SHAPE[1:]), num_steps=2, guidance=2.0, negative_context=context(0.0)
    )
    assert found.shape[0] == 2


def test_the_low_noise_expert_takes_over_at_the_boundary(dit, calls):
    other = make_dit(1)
    sample_latents(dit, context(0.0), SHAPE, num_steps=10, dit_low_noise=other, boundary=0.875)
    assert [model is other for model, _, _ in calls] == [timestep < 875 for _, timestep, _ in calls]
    assert {id(model) for model, _, _ in calls} == {id(dit), id(other)}


def test_noise_is_raised_outside_the_ellipse(dit, calls):
    ellipse = torch.zeros(2, 4, 4)
    ellipse[:, :2] = 1
    found = sample_latents(dit, context(0.0), SHAPE, num_steps=2, solver="euler", ellipse=ellipse, noise_shift=0.05)
    raised = found - draw_noise(SHAPE, 0)
    assert torch.allclose(raised[..., :2, :], torch.zeros(()), atol=1e-6)
    assert torch.allclose(raised[..., 2:, :], torch.tensor(0.05), atol=1e-6)
    with pytest.raises(ConfigError, match="latent grid"):
        sample_latents(dit, context(0.0), SHAPE, num_steps=2, ellipse=ellipse[:1], noise_shift=0.05)


def test_nan_is_not_decoded(dit, calls):
    with pytest.raises(NonFiniteError, match="adapter_scale"):
        sample_latents(dit, context(float("nan")), SHAPE, num_steps=2)
