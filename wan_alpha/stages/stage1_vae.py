"""Stage 1: train the RGBA VAE to give back colour and alpha from one latent (Wan-Alpha, Section 3.1)."""

from dataclasses import asdict

import torch
from torch import nn

from wan_alpha.alpha.composite import BACKGROUND_COLORS, hard_render
from wan_alpha.alpha.ranges import model_to_unit, rgba_frames
from wan_alpha.data.dataset import RGBAVideoDataset, collate
from wan_alpha.data.manifest import read_manifest
from wan_alpha.data.operators import LoadRGBAVideoPair
from wan_alpha.data.sampling import seeded_generator
from wan_alpha.losses.reconstruction import TEMPORAL_TERMS, TERMS, RGBAReconstructionLoss
from wan_alpha.metrics.reconstruction import ReconstructionMeter
from wan_alpha.models.checkpointed import Checkpointed
from wan_alpha.models.devices import announce, choose_compute, is_first_process
from wan_alpha.models.rgba_vae import RGBAlphaVAE
from wan_alpha.stages.clips import plan_recipe_clips
from wan_alpha.stages.dry_run import foresee_vae
from wan_alpha.stages.memory_check import check_memory, vae_estimate
from wan_alpha.stages.plan_vae import plan_vae
from wan_alpha.training.loop import run_training
from wan_alpha.training.performance import measured, recording
from wan_alpha.training.progress import StepProgress
from wan_alpha.training.start import check_start
from wan_alpha.weights.io import tensors_sha256

WEIGHTS_FILE = "rgba_vae.safetensors"
RELEASED_FILE = "rgba_vae_released.bin"
DECODERS_FILE = "decoder.bin"
DEFAULT_INIT = "from_vae"
NUM_PREVIEWS = 2
_QUALITIES = ("psnr", "mae", "ssim")
VALIDATION_FIGURES = tuple(f"{stream}_{quality}" for stream in ("rgb", "alpha") for quality in _QUALITIES)


class ReconstructionModule(nn.Module):
    """An RGBA VAE and its loss, from a batch of clips to the loss's terms.

    Args:
        vae: a :class:`RGBAlphaVAE` with its trainable parts chosen; loss: a :class:`RGBAReconstructionLoss`.
    """

    def __init__(self, vae, loss):
        super().__init__()
        self.vae = vae
        self.loss = loss

    def forward(self, batch):
        """Render, encode, decode, compare.

        Args:
            batch: rgb (B, 3, T, H, W) straight in [-1, 1]; alpha (B, 1, T, H, W) in [0, 1]; sample_seed (B,), which
                each clip's two background colours follow from.

        Returns:
            dict of the loss's scalar terms, "total" among them.
        """
        rgb, alpha = batch["rgb"], batch["alpha"]
        hard_background, soft_background = (
            random_backgrounds(batch["sample_seed"], render).to(rgb) for render in ("hard", "soft")
        )
        rendered = hard_render(rgb, alpha, hard_background, self.loss.hard_threshold)
        # The base encoder is frozen and its input needs no gradient: the graph begins at the merge block.
        pred_rgb, pred_alpha = self.vae.decode_raw(self.vae.encode_raw(rendered, alpha))
        return self.loss(
            pred_rgb, pred_alpha, rgb, alpha, hard_background=hard_background, soft_background=soft_background
        )


def checkpoint_gradients(module) -> None:
    """Let a ReconstructionModule compute the decoders' and the perceptual network's activations twice."""
    module.vae.gradient_checkpointing = True
    if module.loss.perceptual is not None:
        module.loss.perceptual = Checkpointed(module.loss.perceptual)


def random_backgrounds(sample_seeds, render):
    """One of the eight colours per sample, as the render operators draw it: (B, 3), [-1, 1].

    Args:
        sample_seeds: (B,) int64; render: "hard" or "soft", which differ.
    """
    draws = [torch.randint(8, (), generator=seeded_generator(seed, render)) for seed in sample_seeds.tolist()]
    return BACKGROUND_COLORS[torch.stack(draws)]


def build_loss(settings):
    """A :class:`RGBAReconstructionLoss` from a recipe's LossSettings."""
    kinds = {"l1": settings.l1_weight, "perceptual": settings.perceptual_weight, "edge": settings.edge_weight}
    if settings.perceptual == "none":
        del kinds["perceptual"]
    weights = {term: kinds[term.split("_")[0]] for term in TERMS if term.split("_")[0] in kinds}
    weights |= dict.fromkeys(TEMPORAL_TERMS, settings.temporal_weight)
    return RGBAReconstructionLoss(
        perceptual_weights=settings.perceptual_weights,
        perceptual=settings.perceptual,
        edge_kernel=settings.edge_kernel,
        weights=weights,
        hard_threshold=settings.hard_threshold,
    )


def build_vae(model, seed):
    """The RGBA VAE of a recipe's TrainVAEModel, its trainable part chosen, in float32 on the CPU."""
    vae = RGBAlphaVAE.from_pretrained(
        model.base_vae, model.rgba_weights, model.decoder_lora, init=model.init or DEFAULT_INIT,
        lora_rank=model.lora_rank, merge_width=model.merge_width, seed=seed,
    )  # fmt: skip
    vae.chunk_size = model.chunk_size
    return vae.set_trainable(model.mode)


def training_clips(data, seed):
    """The dataset of a recipe's TrainVAEData."""
    plan = plan_recipe_clips(data, seed)
    operator = LoadRGBAVideoPair(
        num_frames=data.num_frames, height=data.height, width=data.width, augment=data.augment,
        mode=data.frame_sampling or ("random" if data.augment else "head"), cache_clips=data.cache_clips,
        target_fps=data.target_fps, ping_pong=data.ping_pong,
    )  # fmt: skip
    shapes = plan.shapes if data.buckets.are_used else None
    return RGBAVideoDataset(plan.rows, operator, seed=seed, mixture=plan.mixture, shapes=shapes, summary=plan.summary)


def held_out_clips(data):
    """The first ``validation_clips`` clips of the validation manifest, cut in the centre, as (rgb, alpha) pairs."""
    num_frames = data.validation_num_frames or data.num_frames
    operator = LoadRGBAVideoPair(
        num_frames=num_frames, height=data.height, width=data.width, target_fps=data.target_fps
    )
    return [(sample["rgb"][None], sample["alpha"][None]) for sample in map(operator, held_out_rows(data))]


def held_out_rows(data):
    """The rows of those clips; none where there is no validation manifest.

    Raises:
        DataError: the manifest cannot be read, or a file that it names is not there.
    """
    if data.validation_metadata is None:
        return []
    return read_manifest(data.validation_metadata, data.base_path)[: data.validation_clips]


def reconstruction_figures(vae, clips, hard_threshold=0.0):
    """Quality of a VAE's reconstructions.

    Args:
        vae: a :class:`RGBAlphaVAE`.
        clips: pairs of rgb (1, 3, T, H, W) straight in [-1, 1] and alpha (1, 1, T, H, W) in [0, 1]; clip i is rendered
            on colour i of the eight, so that the figures of two validations can be compared.

    Returns:
        dict of rgb_psnr, rgb_mae, rgb_ssim (over grey, with the true alpha), alpha_psnr, alpha_mae, alpha_ssim: each
        clip's figure, averaged over the clips; dB, levels of 255, and at most 1.
    """
    device = vae.latent_mean.device
    totals, progress = {}, StepProgress("validating", len(clips), enabled=False, unit="clips")
    for index, (rgb, alpha) in enumerate(clips):
        rgb, alpha = rgb.to(device), alpha.to(device)
        rendered = hard_render(rgb, alpha, BACKGROUND_COLORS[index % 8], hard_threshold)
        pred_rgb, pred_alpha = vae.decode(vae.encode(rendered, alpha))
        meter = ReconstructionMeter()
        meter.update(model_to_unit(pred_rgb.float()), pred_alpha.float(), model_to_unit(rgb), alpha)
        for stream, quality in asdict(meter.quality()).items():
            for figure in _QUALITIES:
                totals[f"{stream}_{figure}"] = totals.get(f"{stream}_{figure}", 0.0) + quality[figure] / len(clips)
        progress.update(index + 1)
    return totals


def reconstructed_clips(vae, clips, hard_threshold=0.0):
    """What a VAE makes of clips: name -> straight RGBA frames, (T, H, W, 4) uint8; arguments as above."""
    device, shown = vae.latent_mean.device, {}
    for index, (rgb, alpha) in enumerate(clips):
        rgb, alpha = rgb.to(device), alpha.to(device)
        pred_rgb, pred_alpha = vae.decode(vae.encode(
            hard_render(rgb, alpha, BACKGROUND_COLORS[index % 8], hard_threshold), alpha))  # fmt: skip
        shown[f"clip_{index}"] = rgba_frames(pred_rgb.float(), pred_alpha.float())
    return shown


def export_weights(vae, folder, recipe=None):
    """Write a trained VAE in this project's naming and in the released ones (whole, and the decoders alone).

    Returns:
        the files.
    """
    vae.save(folder / WEIGHTS_FILE, recipe=recipe)
    vae.save_released(folder / RELEASED_FILE)
    vae.save_released(folder / DECODERS_FILE, decoders_only=True)
    return [folder / name for name in (WEIGHTS_FILE, RELEASED_FILE, DECODERS_FILE)]


def frozen_weights(module, recipe, base_sha256):
    """What a run stands on and does not train, so that no checkpoint holds it: option -> {"file", "sha256"}.

    Args:
        module: a ReconstructionModule; recipe: its TrainVAERecipe; base_sha256: of its base VAE.
    """
    model, perceptual = recipe.model, module.loss.perceptual
    found = {"model.base_vae": (model.base_vae, base_sha256)}
    if model.mode == "merge":
        option = "decoder_lora" if model.decoder_lora is not None else "rgba_weights"
        decoders = {name: value for name, value in module.vae.trained_state().items() if not name.startswith("merge.")}
        found[f"model.{option}"] = (getattr(model, option), tensors_sha256(decoders))
    if perceptual is not None:
        file = recipe.loss.perceptual_weights or "torchvision's cache"
        found["loss.perceptual_weights"] = (file, tensors_sha256(perceptual.state_dict()))
    return {option: {"file": str(file), "sha256": sha256} for option, (file, sha256) in found.items()}


def train_vae(recipe):
    """Train stage 1; the same call again continues an interrupted run.

    Args:
        recipe: a TrainVAERecipe.

    Returns:
        The loop's TrainingResult (None of a dry run);
        ``output_dir`` holds rgba_vae.safetensors, rgba_vae_released.bin and decoder.bin, and
        each checkpoint in it the first of them.

    Raises:
        ConfigError, DataError, CheckpointError, NonFiniteError: what is wrong with recipe, clips, weights or numbers.
    """
    check_start(recipe.training, bool(held_out_rows(recipe.data)), figures=VALIDATION_FIGURES)
    if recipe.dry_run:
        return foresee_vae(recipe)
    announce(choose_compute(recipe.training.device, recipe.training.precision))
    check_memory(recipe, plan_vae, vae_estimate(recipe))
    with recording("train-vae", recipe.output_dir, is_first_process()):
        return _train(recipe)


def _train(recipe):
    clips = training_clips(recipe.data, recipe.seed)
    held_out = held_out_clips(recipe.data)
    # The first held-out clips; without any, the first of those that are trained on.
    shown = held_out[:NUM_PREVIEWS]
    if recipe.training.preview_every is not None and not shown:
        source = recipe.data.sources[0]
        own = {"base_path": source.base_path, "validation_metadata": source.manifest, "validation_clips": NUM_PREVIEWS}
        shown = held_out_clips(recipe.data.model_copy(update=own))
    with measured("load"):
        module = ReconstructionModule(build_vae(recipe.model, recipe.seed), build_loss(recipe.loss))
    metadata = module.vae.metadata(recipe.as_dict())
    base = frozen_weights(module, recipe, metadata["base_vae_sha256"])
    if recipe.training.gradient_checkpointing:
        checkpoint_gradients(module)

    def validate(module):
        return reconstruction_figures(module.vae, held_out, recipe.loss.hard_threshold)

    return run_training(
        module,
        clips,
        recipe.training,
        recipe.output_dir,
        recipe.seed,
        collate=collate,
        validate=validate if held_out else None,
        preview=lambda module: reconstructed_clips(module.vae, shown, recipe.loss.hard_threshold),
        export=lambda module, folder: export_weights(module.vae, folder, recipe.as_dict()),
        checkpoint_export=lambda module: {WEIGHTS_FILE: (module.vae.trained_state(), metadata)},
        base=base,
        recipe=recipe,
        description=f"stage 1 ({recipe.model.mode})",
    )
