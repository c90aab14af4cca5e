"""What training the RGBA VAE will take."""

from pathlib import Path

import torch

from wan_alpha.errors import ConfigError
from wan_alpha.losses.backbone_weights import find_backbone_weights
from wan_alpha.losses.perceptual import VGGPerceptualLoss, vgg16_layers
from wan_alpha.losses.reconstruction import TERMS
from wan_alpha.stages.planned_clips import clip_table, largest_bucket, planned_clips
from wan_alpha.stages.planned_models import planned_vae
from wan_alpha.stages.plans import Plan, checkpoint_rows, step_rows, with_host_copy
from wan_alpha.training.step_memory import Layout, step_memory


def plan_vae(recipe, target, assumptions):
    """The :class:`Plan` of a TrainVAERecipe.

    Args:
        target: a Target; assumptions: Assumptions, which gather what was not there.

    Raises:
        ConfigError, DataError, CheckpointError: what the run would refuse at its start, as far as names and sizes tell.
    """
    settings = recipe.training
    clips = planned_clips(recipe.data, recipe.seed, assumptions)
    shapes = recipe.data.shapes if clips is None else clips.shapes
    if assumptions.bucket is not None:
        shapes = [assumptions.bucket]
    vae = planned_vae(recipe.model, assumptions)
    check_grid(vae, shapes)
    exported = sum(tensor.numel() for tensor in vae.trained_state().values())
    memory = memory_of_steps(vae, recipe, target, assumptions, largest_bucket(shapes))
    num_samples = assumptions.num_samples if clips is None else sum(clips.mixture.samples)
    steps, num_steps = step_rows(num_samples, settings, target)
    not_counted = ["the activations of LPIPS's network"] if recipe.loss.perceptual == "lpips" else []
    return Plan(
        "train-vae", target,
        data={"sizes": ", ".join(sorted(set(map(str, shapes))))} if clips is None else clip_table(clips)
        | {"samples of an epoch": str(num_samples)},
        memory=with_host_copy(memory.rows(), target, settings, memory.num_trained, exported),
        disk=checkpoint_rows(memory.num_trained, settings, exported),
        summary="" if clips is None else clips.summary, steps=steps, num_steps=num_steps,
        num_trained=memory.num_trained, bucket=largest_bucket(shapes), not_counted=not_counted,
        assumed=assumptions.said,
    )  # fmt: skip


def memory_of_steps(vae, recipe, target, assumptions, bucket):
    """The StepMemory of steps on clips of one size."""
    from wan_alpha.stages.stage1_vae import ReconstructionModule, build_loss, checkpoint_gradients

    settings = recipe.training
    module = ReconstructionModule(vae, build_loss(recipe.loss.model_copy(update={"perceptual": "none"})))
    _check_backbone(recipe.loss, assumptions)
    if recipe.loss.perceptual == "vgg16":
        module.loss.perceptual = VGGPerceptualLoss(features=vgg16_layers().requires_grad_(False))
        module.loss.weights |= {term: recipe.loss.perceptual_weight for term in TERMS if term.startswith("perceptual")}
    if settings.gradient_checkpointing:
        checkpoint_gradients(module)
    size = (settings.batch_size, 3, bucket.frames, bucket.height, bucket.width)

    def make_loss(module):
        rgb, alpha = torch.empty(size), torch.empty(size[0], 1, *size[2:])
        grey = (0.0, 0.0, 0.0)
        pred_rgb, pred_alpha = module.vae.decode_raw(module.vae.encode_raw(rgb, alpha))
        return module.loss(pred_rgb, pred_alpha, rgb, alpha, hard_background=grey, soft_background=grey)["total"]

    # Stage 1 is replicated, whatever accelerate shards.
    layout = Layout(processes=target.processes)
    return step_memory(module, make_loss, settings, target.dtype(settings.precision), target.device_type, layout=layout)


def check_grid(vae, shapes):
    """Raises:
    ConfigError: a size whose sides the VAE cannot cut into its cells.
    """
    for bucket in shapes:
        for name, side in (("height", bucket.height), ("width", bucket.width)):
            if side % vae.spatial_stride:
                raise ConfigError(f"{bucket}: {name} {side}: the VAE takes multiples of {vae.spatial_stride}")


def _check_backbone(loss, assumptions):
    if loss.perceptual == "none":
        return
    network = {"lpips": "alex"}.get(loss.perceptual, loss.perceptual)
    try:
        find_backbone_weights(network, loss.perceptual_weights, loss.perceptual)
    except ConfigError:
        if not assumptions.are_allowed:
            raise
        where = "torchvision's cache" if loss.perceptual_weights is None else Path(loss.perceptual_weights)
        assumptions.say(f"the weights of {network} are not in {where} yet; the run needs them")
