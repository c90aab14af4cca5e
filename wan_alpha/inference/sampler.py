"""From a text context to latents."""

import torch

from wan_alpha.alpha.masks import shifted_noise
from wan_alpha.errors import ConfigError, NonFiniteError
from wan_alpha.inference.solvers import draw_noise, make_solver
from wan_alpha.models.wan import predict_velocity


@torch.no_grad()
def sample_latents(
    dit, context, shape, *, num_steps, shift=5.0, guidance=1.0, negative_context=None, solver="unipc", seed=0,
    ellipse=None, noise_shift=0.0, callback=None, dit_low_noise=None, boundary=0.875,
):  # fmt: skip
    """Integrate a DiT's flow from noise to latents.

        v = v_negative + guidance * (v_positive - v_negative)        (Ho & Salimans 2022)

    Args:
        dit: a ``WanModel``; latents are sampled on its device, in float32.
        context: (B, L, text_dim); negative_context: the same shape or (1, L, text_dim), needed unless guidance is 1.
        shape: (B, C, n+1, h, w).
        num_steps, shift, solver: as in ``make_solver``.
        guidance: 1 asks the model once a step, anything else twice.
        seed: of the noise, drawn on the CPU.
        ellipse: where the subject stands, (n+1, h, w) or (B, n+1, h, w) in [0, 1]; noise_shift: how much the noise is
            raised elsewhere (``alpha.masks.shifted_noise``).
        callback: called as callback(steps done, num_steps) after every step.
        dit_low_noise: the expert that takes over where sigma falls below `boundary` (Wan2.2 A14B).

    Returns:
        Normalised latents of that shape, float32.

    Raises:
        ConfigError: guidance without a negative context, an unknown solver, an ellipse off the latent grid.
        NonFiniteError: the model gave NaN or infinity.
    """
    if guidance != 1 and negative_context is None:
        raise ConfigError(f"guidance = {guidance} needs a negative prompt's context; guidance = 1 needs none")
    device = dit.patch_embedding.weight.device
    noise = draw_noise(shape, seed)
    if ellipse is not None:
        noise = shifted_noise(noise, ellipse.cpu(), noise_shift)
    latents, context = noise.to(device), context.to(device)
    if guidance != 1:
        negative_context = negative_context.to(device).expand_as(context)
    steps = make_solver(solver, num_steps, shift)
    for done, timestep in enumerate(steps.timesteps, start=1):
        model = dit_low_noise if dit_low_noise is not None and timestep < 1000 * boundary else dit
        timesteps = timestep.expand(len(latents)).to(device)
        velocity = predict_velocity(model, latents, timesteps, context)
        if guidance != 1:
            unconditional = predict_velocity(model, latents, timesteps, negative_context)
            velocity = unconditional + guidance * (velocity - unconditional)
        latents = steps.step(velocity, latents)
        if callback is not None:
            callback(done, num_steps)
    if not latents.isfinite().all():
        raise NonFiniteError("sampling gave NaN or infinity: check weights and adapter_scale, or use precision = fp32")
    return latents
