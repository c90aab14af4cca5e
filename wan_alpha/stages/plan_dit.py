"""What training the diffusion model will take."""

import json
import math

import torch
from torch import nn

from wan_alpha.models.adapters import KINDS
from wan_alpha.models.load import DEFAULT_BOUNDARY
from wan_alpha.stages.expert_checks import check_boundary
from wan_alpha.stages.experts import BOTH
from wan_alpha.stages.low_memory import BYTES_OF_A_WEIGHT
from wan_alpha.stages.placeholders import check_word, checkpoint_blocks
from wan_alpha.stages.planned_clips import PlannedCache, bucket_of_latents
from wan_alpha.stages.planned_models import planned_dit, planned_text_encoder, planned_tokenizer
from wan_alpha.stages.plans import Plan, checkpoint_rows, step_rows, with_host_copy, with_waiting
from wan_alpha.stages.shard_limits import check_shards
from wan_alpha.training.step_memory import Layout, step_memory


def plan_dit(recipe, target, assumptions):
    """The :class:`Plan` of a TrainDiTRecipe; arguments and errors as those of ``plan_vae``."""
    settings = recipe.training
    if target.shards > 1:
        check_shards(recipe)
    dit, _ = planned_dit(recipe.model, assumptions)
    cache = PlannedCache(recipe, dit.in_dim, dit.text_embedding[0].in_features, assumptions)
    if recipe.model.expert is not None:
        boundary = recipe.model.boundary or DEFAULT_BOUNDARY
        check_boundary(recipe, boundary, {shape[1:] for shape in cache.shapes})
    if recipe.textual_inversion.placeholder is not None and assumptions.is_first("placeholder"):
        tokenizer = planned_tokenizer(recipe.model.wan, assumptions)
        check_word(recipe.textual_inversion, cache.prompts, tokenizer)
    memory = memory_of_steps(dit, recipe, target, assumptions, cache.largest, cache.context_length)
    exported = 0 if recipe.adapter.kind == "full" else memory.num_trained
    steps, num_steps = step_rows(cache.num_samples, settings, target)
    tokens = num_tokens(cache.largest)
    step_size = settings.batch_size * settings.gradient_accumulation * target.processes
    steps["tokens of a step"] = f"{step_size * tokens} ({tokens} a clip{' of the largest' * (len(cache.shapes) > 1)})"
    return Plan(
        "train-dit", target, data=cache.data,
        memory=with_host_copy(with_waiting(memory, target), target, settings, memory.num_trained, exported),
        host_memory=memory.host if target.device_type == "cuda" else 0.0,
        disk=checkpoint_rows(memory.num_trained, settings, exported), summary=cache.summary,
        steps=steps, num_steps=num_steps, tokens=step_size * tokens, num_trained=memory.num_trained,
        bucket=bucket_of_latents(cache.largest), not_counted=_not_counted(recipe), assumed=assumptions.said,
    )  # fmt: skip


def num_tokens(shape):
    """Tokens of latents (C, t, h, w): a patch is 1x2x2 cells."""
    return math.prod(shape[1:]) // 4


def memory_of_steps(dit, recipe, target, assumptions, shape, context_length):
    """The StepMemory of steps on latents of one shape, (C, t, h, w)."""
    from wan_alpha.models.wan import predict_velocity

    settings, dtype = recipe.training, target.dtype(recipe.training.precision)
    module = _WithCaptions(dit, recipe, dtype, assumptions)
    batch, text_dim = settings.batch_size, dit.text_embedding[0].in_features

    def make_loss(module):
        latents = torch.empty(batch, *shape)
        context = module.contexts(batch, context_length, text_dim)
        velocity = predict_velocity(
            module.dit, latents, torch.empty(batch), context, gradient_checkpointing=settings.gradient_checkpointing
        )
        return (velocity.float() - latents).square().mean()

    captions = None if module.text_encoder is None else module.text_encoder.blocks
    made = assumptions.steps.setdefault(_step_key(recipe, target, shape, context_length), {})
    return step_memory(
        module, make_loss, settings, dtype, target.device_type, dit.blocks,
        layout_of(recipe, target), made, captions,
    )  # fmt: skip


def _step_key(recipe, target, shape, context_length):
    """All that the tensors of a step depend on, as opposed to where they are kept."""
    settings = recipe.training
    return json.dumps(
        [str(recipe.model.wan), str(recipe.model.dit), recipe.model.expert, recipe.adapter.model_dump(),
         recipe.textual_inversion.model_dump(), settings.batch_size, settings.gradient_accumulation > 1,
         settings.gradient_checkpointing, settings.precision, target.device_type, shape, context_length]
    )  # fmt: skip


def layout_of(recipe, target):
    """How a TrainDiTRecipe's weights are spread over processes and between device and host: a Layout."""
    settings, quantization = recipe.training, recipe.model.quantization
    return Layout(
        copies=2 if recipe.model.expert == BOTH else 1, processes=target.processes, shards=target.shards,
        keeps_on_host=settings.offload_activations, linear_bytes=BYTES_OF_A_WEIGHT.get(quantization),
        restores_layer=quantization == "nf4", blocks_on_host=settings.offload_blocks,
    )  # fmt: skip


class _WithCaptions(nn.Module):
    """The DiT as a recipe trains it, and the text encoder where a placeholder learns."""

    def __init__(self, dit, recipe, dtype, assumptions):
        super().__init__()
        self.dit = _as_trained(dit, recipe, dtype)
        self.text_encoder = None
        words = recipe.textual_inversion
        if words.placeholder is not None:
            from wan_alpha.models.textual_inversion import PlaceholderEmbedding

            encoder = planned_text_encoder(recipe.model.wan, assumptions).to(dtype).requires_grad_(False)
            with torch.device("meta"):
                embedding = PlaceholderEmbedding(encoder.token_embedding)
                vectors = torch.empty(words.num_vectors, embedding.weight.shape[1])
                embedding.add(words.placeholder, vectors, list(range(words.num_vectors)))
            encoder.token_embedding = embedding
            if recipe.training.gradient_checkpointing:
                checkpoint_blocks(encoder)
            self.text_encoder = encoder

    def contexts(self, batch, length, text_dim):
        """Contexts (B, L, text_dim) without content."""
        if self.text_encoder is None:
            return torch.empty(batch, length, text_dim)
        ids = torch.zeros(batch, length, dtype=torch.long)
        mask = torch.ones(batch, length, dtype=torch.long)
        return self.text_encoder(ids, mask).masked_fill(mask.unsqueeze(-1) == 0, 0).float()


def _as_trained(dit, recipe, dtype):
    from wan_alpha.models.adapters import add_adapter

    adapter = recipe.adapter
    dit.requires_grad_(adapter.kind == "full")
    if adapter.kind != "full":
        dit.to(dtype)
    if adapter.kind in KINDS:
        with torch.device("meta"):
            add_adapter(dit, adapter.kind, adapter.rank, adapter.alpha, adapter.targets)
    return dit


def _not_counted(recipe):
    missing = []
    if recipe.training.preview_every is not None:
        missing.append("previews, which sample and decode between steps")
    return missing
