"""Stage 2: teach the diffusion model to make RGBA latents, by an adapter or in full, from a latent cache."""

import math

import torch
from diffsynth.diffusion import DiffusionTrainingModule
from torch import Tensor

from wan_alpha.data.cached_samples import LatentCacheDataset
from wan_alpha.data.dataset import collate
from wan_alpha.data.sampling import seeded_generator
from wan_alpha.errors import ConfigError
from wan_alpha.inference.sampler import sample_latents
from wan_alpha.models.adapters import add_adapter
from wan_alpha.models.devices import announce, choose_compute, is_first_process
from wan_alpha.models.wan import predict_velocity
from wan_alpha.stages.cache_fit import check_fits_dit, dit_widths
from wan_alpha.stages.dit_data import open_data, previewed_cache
from wan_alpha.stages.dit_exports import (
    base_weights,
    describe_weights,
    export_trained,
    run_cards,
    trained_files,
    weights_sha256,
)
from wan_alpha.stages.dry_run import foresee_dit
from wan_alpha.stages.expert_checks import check_expert_of_files
from wan_alpha.stages.experts import (
    BOTH,
    load_trained_dits,
    predict_by_experts,
    trained_experts,
)
from wan_alpha.stages.flow_objective import (
    Draw,
    draw_batch,
    noisy_batch,
    training_scheduler,
    velocity_loss,
)
from wan_alpha.stages.low_memory import check_low_memory, save_memory
from wan_alpha.stages.memory_check import check_memory, dit_estimate
from wan_alpha.stages.placeholders import CaptionEncoder
from wan_alpha.stages.plan_dit import plan_dit
from wan_alpha.stages.sampled_previews import SampledPreviews
from wan_alpha.stages.shard_limits import BOTH_IN_SHARDS, WORD_IN_SHARDS
from wan_alpha.stages.timesteps import NUM_TIMESTEPS, expert_ids, shift_for
from wan_alpha.training.loop import run_training
from wan_alpha.training.model_options import check_model_options
from wan_alpha.training.performance import measured, recording
from wan_alpha.training.progress import StageBars, StepProgress
from wan_alpha.training.recipes import AdapterSettings, ObjectiveSettings
from wan_alpha.training.start import check_start

NUM_VALIDATION_TIMESTEPS = 4
VALIDATION_FIGURES = ("loss", "velocity_mse")


class WanAlphaTrainingModule(DiffusionTrainingModule):
    """A Wan pipeline's DiT with what is trained of it, and its rectified-flow loss on cached latents.

    What it adds to diffsynth's training module: DoRA, an adapter alpha that differs from the rank, float32 adapters and
    timesteps whatever the base's type, batches, and noise whose mean is raised outside the subject.

    Args:
        pipe: a ``WanVideoPipeline`` that holds at least its ``dit``.
        adapter: :class:`AdapterSettings`; the kind "full" trains every weight of the DiT, in float32, "none" nothing.
        objective: :class:`ObjectiveSettings`.
        gradient_checkpointing: compute activations twice to save memory.
        empty_context: context of the empty caption, (context_length, text_dim); needed with caption dropout.
        captions: a :class:`CaptionEncoder` whose placeholder learns; None takes the cached contexts.
        expert: "high_noise", "low_noise" or "both" of a model of two experts, from ``load_trained_dits``.
        offload_activations: with gradient checkpointing: what goes into a block waits in host memory for its backward.

    Raises:
        ConfigError: caption dropout without an empty context.
    """

    def __init__(
        self, pipe, adapter=None, objective=None, gradient_checkpointing=False, empty_context=None, captions=None,
        expert=None, offload_activations=False,
    ):  # fmt: skip
        super().__init__()
        self.pipe = pipe
        self.adapter = adapter or AdapterSettings()
        self.objective = objective or ObjectiveSettings()
        self.gradient_checkpointing = gradient_checkpointing
        self.offload_activations = offload_activations
        self.empty_context = empty_context
        self.captions = captions
        self.expert = expert
        if self.objective.caption_dropout and empty_context is None:
            raise ConfigError(
                f"objective.caption_dropout = {self.objective.caption_dropout} needs the empty caption's context"
            )
        trains_all = self.adapter.kind == "full"
        if trains_all:
            # AdamW's small steps vanish in bfloat16 weights; autocast still computes in it.
            for _, dit in self.experts():
                dit.float()
        self.switch_pipe_to_training_mode(
            pipe,
            trainable_models=("dit,dit2" if expert == BOTH else "dit") if trains_all else None,
            lora_base_model="dit" if self.adapter.kind in ("dora", "lora") else None,
            lora_target_modules=",".join(self.adapter.targets),
            lora_rank=self.adapter.rank,
        )
        if expert == BOTH and self.adapter.kind in ("dora", "lora"):
            self.add_lora_to_model(pipe.dit2, list(self.adapter.targets), self.adapter.rank)
        self._schedulers = {self.objective.shift: training_scheduler(self.objective.shift, pipe.scheduler)}

    def experts(self):
        """(expert, its DiT) of all that is trained; the expert is None for a model's only DiT."""
        return trained_experts(self.pipe, self.expert)

    def add_lora_to_model(self, model, target_modules, lora_rank, lora_alpha=None, upcast_dtype=None):
        """Inject the adapter: LoRA or DoRA, with its own alpha, in float32 whatever ``upcast_dtype`` asks for."""
        targets = [target_modules] if isinstance(target_modules, str) else target_modules
        alpha = self.adapter.alpha if lora_alpha is None else lora_alpha
        add_adapter(model, kind=self.adapter.kind, rank=lora_rank, alpha=alpha, targets=tuple(targets))
        return model

    def mapping_lora_state_dict(self, state_dict):
        """PEFT's saved names to names within the model; magnitude vectors are kept, which make DoRA what it is."""
        magnitudes = {}
        for key, value in state_dict.items():
            stem, found, _ = key.partition(".lora_magnitude_vector")
            if found:
                magnitudes[f"{stem}.lora_magnitude_vector.default.weight"] = value
        return {**super().mapping_lora_state_dict(state_dict), **magnitudes}

    sharded_methods = ("sample",)

    @torch.no_grad()
    def sample(self, context: Tensor, shape: tuple[int, ...], num_steps: int, seed: int) -> Tensor:
        """Latents of ``shape`` that the DiT makes from a text context (B, L, text_dim), without guidance."""
        return sample_latents(
            self.pipe.dit, context, shape, num_steps=num_steps, shift=self.objective.shift, seed=seed,
            dit_low_noise=self.pipe.dit2, boundary=self.pipe.boundary,
        )  # fmt: skip

    def shard_units(self):
        """What is gathered as one where the weights are in shards over the processes: each block of the DiT."""
        if self.captions is not None:
            raise ConfigError(WORD_IN_SHARDS)
        if self.expert == BOTH:
            raise ConfigError(BOTH_IN_SHARDS)
        return list(self.pipe.dit.blocks)

    def forward(self, batch: dict, draw: Draw | None = None) -> dict[str, Tensor]:
        """The loss of one batch; its noise, timesteps and dropped captions follow from each sample's seed.

        Args:
            batch: ``latents`` (B, C, t, h, w), ``context`` (B, L, text_dim), ``ellipse`` (B, t, h, w), ``prompt``, a
                list of B captions, and ``sample_seed`` (B,) int64, as LatentCacheDataset and collate give them.
            draw: of noise, timesteps and dropped captions, in place of what the seeds give.

        Returns:
            {"total", "velocity_mse"}: see :func:`velocity_loss`.
        """
        if draw is None:
            ids = self.timestep_ids(batch["latents"].shape)
            draw = draw_batch(batch["latents"], batch["sample_seed"], self.objective, ids)
        context = batch["context"] if self.captions is None else self.captions(batch["prompt"])
        if self.empty_context is not None:
            context = torch.where(draw.drops_caption.view(-1, 1, 1), self.empty_context.to(context), context)
        scheduler = self._scheduler_for(batch["latents"].shape)
        noisy = noisy_batch(batch["latents"], draw, batch["ellipse"], scheduler, self.objective)
        inputs = (noisy.noisy, noisy.timesteps, context)
        options = {
            "gradient_checkpointing": self.gradient_checkpointing, "offload_activations": self.offload_activations
        }  # fmt: skip
        if self.expert == BOTH:
            return velocity_loss(predict_by_experts(self.pipe, *inputs, **options), noisy)
        return velocity_loss(predict_velocity(self.pipe.dit, *inputs, **options), noisy)

    def timestep_ids(self, shape) -> range:
        """Ids of the timesteps that are trained on with latents (B, C, t, h, w): all, or one expert's."""
        if self.expert in (None, BOTH):
            return range(NUM_TIMESTEPS)
        return expert_ids(self._scheduler_for(shape).timesteps, self.pipe.boundary, self.expert)

    def _scheduler_for(self, shape):
        """The training timesteps of latents (B, C, t, h, w); one schedule for all sizes, or one for each."""
        num_tokens = math.prod(shape[2:]) // math.prod(self.pipe.dit.patch_size)
        shift = shift_for(num_tokens, self.objective)
        if shift not in self._schedulers:
            self._schedulers[shift] = training_scheduler(shift)
        return self._schedulers[shift]


@torch.no_grad()
def validation_loss(module, dataset) -> dict[str, float]:
    """Loss on held-out clips at fixed timesteps, noises and captions: the same question at every call.

    Args:
        module: a :class:`WanAlphaTrainingModule`; dataset: a LatentCacheDataset.

    Returns:
        {"loss", "velocity_mse"}, means over clips and four timesteps spread over the schedule; captions are kept.
    """
    device = next(module.pipe.dit.parameters()).device
    totals = dict.fromkeys(VALIDATION_FIGURES, 0.0)
    num_clips = len(dataset.cache.keys)
    progress = StepProgress("validating", num_clips, enabled=False, unit="clips")  # the run's own bar stays
    for index in range(num_clips):
        batch = collate([dataset.clip(index)])
        batch |= {name: batch[name].to(device) for name in ("latents", "context", "ellipse")}
        for timestep_id in validation_ids(module.timestep_ids(batch["latents"].shape)):
            generator = seeded_generator("validation", index, timestep_id)
            noise = torch.randn(batch["latents"].shape, generator=generator).to(device)
            draw = Draw(torch.tensor([timestep_id]), noise, torch.zeros(1, dtype=torch.bool, device=device))
            terms = module(batch, draw)
            totals["loss"] += float(terms["total"])
            totals["velocity_mse"] += float(terms["velocity_mse"])
        progress.update(index + 1)
    return {name: value / (num_clips * NUM_VALIDATION_TIMESTEPS) for name, value in totals.items()}


def validation_ids(ids: range) -> range:
    """Four ids spread over those that are trained on."""
    step = len(ids) // NUM_VALIDATION_TIMESTEPS
    return ids[step // 2 :: step][:NUM_VALIDATION_TIMESTEPS]


def train_dit(recipe):
    """Train the DiT on a latent cache. Running the same recipe again goes on where the last run stopped.

    Args:
        recipe: a TrainDiTRecipe.

    Returns:
        the loop's TrainingResult (None of a dry run).
        ``<output_dir>/adapter.safetensors`` (``dit.safetensors`` for the kind "full") holds
        the result, and each checkpoint's folder an adapter of its step.

    Raises:
        DataError: the cache is incomplete, damaged, stale, or does not fit the DiT or the validation cache.
        CheckpointError: weights are not what they claim.
        ConfigError: a model of two experts without the choice of what is trained, or what the loop refuses.
    """
    check_low_memory(recipe)
    check_start(recipe.training, recipe.validation_cache is not None, figures=VALIDATION_FIGURES)
    check_model_options(recipe, None if recipe.model.dit is None else [str(recipe.model.dit)])
    if recipe.dry_run:
        open_data(recipe)
        return foresee_dit(recipe)
    with recording("train-dit", recipe.output_dir, is_first_process()):
        return _train(recipe)


def _train(recipe):
    cache, validation = open_data(recipe)
    check_fits_dit(cache, *dit_widths(recipe.model))
    check_expert_of_files(recipe, cache)
    check_memory(recipe, plan_dit, dit_estimate(recipe, cache))
    compute = announce(choose_compute(recipe.training.device, recipe.training.precision, recipe.training.attention))
    # The loop moves the model to its device; loading on the CPU keeps it from being there twice.
    with measured("load"), StageBars("tensors", enabled=is_first_process()) as bars:
        pipe = load_trained_dits(recipe.model, compute.dtype, callback=bars)
    captions = None
    if recipe.textual_inversion.placeholder is not None:
        with StageBars("tensors", enabled=is_first_process()) as bars:
            captions = CaptionEncoder(recipe.model.wan, recipe.textual_inversion, compute.dtype, bars)
    with StageBars("tensors", enabled=is_first_process()) as bars:
        experts = trained_experts(pipe, recipe.model.expert)
        base_sha256 = {expert: weights_sha256(dit, bars) for expert, dit in experts}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)  # a new adapter's A is drawn from the global generator
        module = WanAlphaTrainingModule(
            pipe, recipe.adapter, recipe.objective, recipe.training.gradient_checkpointing,
            cache.empty_context() if recipe.objective.caption_dropout else None, captions, recipe.model.expert,
            recipe.training.offload_activations,
        )  # fmt: skip
    save_memory(module, recipe, compute.device)
    previews = None
    if recipe.training.preview_every is not None:
        previews = SampledPreviews(recipe.preview, previewed_cache(cache, validation), recipe.seed)
    return run_training(
        module,
        LatentCacheDataset(cache, recipe.seed, recipe.repeat),
        recipe.training,
        recipe.output_dir,
        recipe.seed,
        collate=collate,
        validate=None if validation is None else lambda module: validation_loss(module, validation),
        preview=previews,
        export=lambda module, folder: export_trained(module, folder, run_cards(recipe, base_sha256, cache)),
        checkpoint_export=lambda module: trained_files(module, run_cards(recipe, base_sha256, cache)),
        weights_metadata=lambda module: describe_weights(module, run_cards(recipe, base_sha256, cache)),
        base=base_weights(recipe.model, base_sha256),
        recipe=recipe,
    )
