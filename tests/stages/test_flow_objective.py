import pytest
import torch

from wan_alpha.alpha.masks import shifted_noise
from wan_alpha.stages.flow_objective import (
    NUM_TIMESTEPS,
    Draw,
    draw_batch,
    draw_sample,
    noisy_batch,
    training_scheduler,
    velocity_loss,
)
from wan_alpha.training.recipes import ObjectiveSettings

SHAPE = (16, 2, 4, 6)
TOLERANCE = 1e-5


def make_latents(batch_size):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch_size, *SHAPE, generator=generator), torch.rand(batch_size, *SHAPE[1:], generator=generator)


def make_draw(ids):
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(len(ids), *SHAPE, generator=generator)
    return Draw(torch.tensor(ids), noise, torch.zeros(len(ids), dtype=torch.bool))


def test_a_sample_sees_the_same_alone_and_in_any_batch():
    latents, _ = make_latents(3)
    seeds = torch.tensor([5, 2**62 + 1, 7])
    batch = draw_batch(latents, seeds, ObjectiveSettings(caption_dropout=0.5))
    for index, seed in enumerate(seeds.tolist()):
        alone = draw_sample(SHAPE, seed, ObjectiveSettings(caption_dropout=0.5))
        for name in ("timestep_ids", "noise", "drops_caption"):
            assert torch.equal(getattr(batch, name)[index], getattr(alone, name)[0])
    assert len({float(noise.sum()) for noise in batch.noise}) == 3


def test_timesteps_are_uniform_over_the_schedule_and_captions_drop_at_their_rate():
    settings = ObjectiveSettings(caption_dropout=0.25)
    samples = [draw_sample((1, 1, 1, 1), seed, settings) for seed in range(4000)]
    ids = torch.cat([sample.timestep_ids for sample in samples])
    assert 0 <= int(ids.min()) < 10 and NUM_TIMESTEPS - 10 <= int(ids.max()) < NUM_TIMESTEPS
    assert abs(ids.float().mean() - 499.5) < 20
    assert abs(torch.cat([sample.drops_caption for sample in samples]).float().mean() - 0.25) < 0.03


@pytest.mark.parametrize("shift", [1.0, 5.0])
def test_each_sample_is_mixed_at_its_own_sigma(shift):
    latents, ellipse = make_latents(3)
    settings = ObjectiveSettings(shift=shift)
    draw = make_draw([0, 400, 999])
    batch = noisy_batch(latents, draw, ellipse, training_scheduler(shift), settings)
    for index, timestep_id in enumerate([0, 400, 999]):
        uniform = 1 - timestep_id / NUM_TIMESTEPS
        sigma = shift * uniform / (1 + (shift - 1) * uniform)
        expected = (1 - sigma) * latents[index] + sigma * draw.noise[index]
        torch.testing.assert_close(batch.noisy[index], expected, atol=TOLERANCE, rtol=0)
        assert float(batch.timesteps[index]) == pytest.approx(1000 * sigma, abs=1e-3)
    torch.testing.assert_close(batch.velocity, draw.noise - latents)
    torch.testing.assert_close(batch.noisy[0], draw.noise[0], atol=TOLERANCE, rtol=0)


def test_all_timesteps_stay_apart_under_autocast():
    latents = torch.zeros(NUM_TIMESTEPS, 1, 1, 1, 1, dtype=torch.bfloat16)
    draw = Draw(torch.arange(NUM_TIMESTEPS), torch.zeros_like(latents), torch.zeros(NUM_TIMESTEPS, dtype=torch.bool))
    with torch.autocast("cpu", torch.bfloat16):
        batch = noisy_batch(latents, draw, latents[:, 0], training_scheduler(5.0), ObjectiveSettings())
    assert batch.timesteps.dtype == torch.float32
    assert len(batch.timesteps.unique()) == NUM_TIMESTEPS
    assert batch.noisy.dtype == torch.float32


def test_the_noise_is_raised_outside_the_ellipse_in_input_and_target():
    latents, ellipse = make_latents(2)
    draw = make_draw([100, 900])
    scheduler = training_scheduler(5.0)
    plain = noisy_batch(latents, draw, ellipse, scheduler, ObjectiveSettings())
    raised = noisy_batch(latents, draw, ellipse, scheduler, ObjectiveSettings(noise_shift=0.05))
    expected = shifted_noise(draw.noise, ellipse, 0.05)
    torch.testing.assert_close(raised.velocity, expected - latents)
    sigmas = (plain.timesteps / 1000).view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(raised.noisy - plain.noisy, sigmas * (expected - draw.noise), atol=TOLERANCE, rtol=0)


def test_the_loss_weighs_samples_one_by_one():
    latents, ellipse = make_latents(2)
    draw, scheduler = make_draw([100, 900]), training_scheduler(5.0)
    batch = noisy_batch(latents, draw, ellipse, scheduler, ObjectiveSettings())
    predicted = torch.zeros_like(latents, requires_grad=True)
    terms = velocity_loss(predicted, batch)
    errors = (draw.noise - latents).square().mean(dim=(1, 2, 3, 4))
    weights = scheduler.linear_timesteps_weights[[100, 900]]
    torch.testing.assert_close(terms["total"], (errors * weights).mean())
    torch.testing.assert_close(terms["velocity_mse"], errors.mean())
    unweighted = noisy_batch(latents, draw, ellipse, scheduler, ObjectiveSettings(weighting="none"))
    plain = velocity_loss(predicted, unweighted)
    torch.testing.assert_close(plain["total"], errors.mean())
    assert terms["total"].requires_grad and not terms["velocity_mse"].requires_grad
    assert float(scheduler.linear_timesteps_weights.mean()) == pytest.approx(1, abs=1e-3)
