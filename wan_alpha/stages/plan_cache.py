"""What building the latent cache will take."""

import torch
from torch import nn

from wan_alpha.models.base_vae import check_token_grid, kind_of_vae
from wan_alpha.models.tiling import Tiling
from wan_alpha.stages.planned_clips import check_tokens, clip_table, largest_bucket, latent_shape, planned_clips
from wan_alpha.stages.planned_models import planned_text_encoder, planned_vae
from wan_alpha.stages.plans import Plan
from wan_alpha.training.foresight import show_bytes
from wan_alpha.training.step_memory import FLOAT32_BYTES, pass_memory

CAPTIONS_AT_A_TIME = 8
_MAX_TOKENS = 512


def plan_cache(recipe, target, assumptions):
    """The :class:`Plan` of a CacheRecipe; arguments and errors as those of ``plan_vae``."""
    clips = planned_clips(recipe.data, recipe.seed, assumptions)
    shapes = recipe.data.shapes if clips is None else clips.shapes
    if assumptions.bucket is not None:
        shapes = [assumptions.bucket]
    vae = planned_vae(recipe.model, assumptions)
    kind, dtype = kind_of_vae(vae.base), target.dtype(recipe.precision)
    table = "data.buckets" if recipe.data.buckets.are_used else "data"
    for bucket in recipe.data.shapes:
        check_token_grid(kind, {f"{table}.height": bucket.height, f"{table}.width": bucket.width})
    if assumptions.bucket is not None:
        check_tokens(kind, assumptions.bucket)
    text = planned_text_encoder(recipe.model.wan, assumptions).to(dtype)
    width = text.token_embedding.weight.shape[1]
    tiling = Tiling(stride=vae.spatial_stride) if recipe.tiled else None
    memory = {
        "text encoder, captions": _text_memory(text, target, recipe.offload_blocks),
        "RGBA VAE, clips": _vae_memory(vae, dtype, target, largest_bucket(shapes), tiling),
    }
    sizes = [latent_shape(kind, bucket) for bucket in shapes]
    # Latents of all channels and one ellipse, float32; clips occur equally often, or nearly so.
    per_item = sum(FLOAT32_BYTES * torch.Size(size[1:]).numel() * (size[0] + 1) for size in sizes) // len(sizes)
    num_items = assumptions.num_samples if clips is None else sum(clips.mixture.samples)
    shown = ", ".join(sorted({" x ".join(map(str, size)) for size in sizes}))
    number = "an unknown number" if num_items is None else num_items
    disk = {"latents and ellipses": f"{show_bytes(per_item)} a clip"}
    if num_items is not None:
        disk["latents and ellipses"] = show_bytes(num_items * per_item)
    most = _MAX_TOKENS * width * dtype.itemsize
    disk["contexts"] = f"what the captions' tokens take, on top: at most {show_bytes(most)} a caption"
    return Plan(
        "cache", target, data=({} if clips is None else clip_table(clips)) | {"items": f"{number}, latents of {shown}"},
        memory=memory | {"in all": max(memory.values())}, disk=disk, assumed=assumptions.said,
        bucket=largest_bucket(shapes),
    )  # fmt: skip


def _text_memory(text, target, offloads):
    of_blocks = [
        sum(part.weight.numel() * part.weight.element_size() for part in block.modules() if isinstance(part, nn.Linear))
        for block in text.blocks
    ]

    def encode(text):
        ids, mask = (torch.zeros(CAPTIONS_AT_A_TIME, _MAX_TOKENS, dtype=torch.long) for _ in range(2))
        return text(ids, mask)

    whole = pass_memory(text, encode, torch.float32, target.device_type)
    return whole - sum(of_blocks) + max(of_blocks) if offloads else whole


def _vae_memory(vae, dtype, target, bucket, tiling):
    vae.chunk_size, vae.tiling = 1, tiling

    def encode(vae):
        size = (bucket.frames, bucket.height, bucket.width)
        return vae.encode_raw(torch.empty(1, 3, *size), torch.empty(1, 1, *size))

    return pass_memory(vae, encode, dtype, target.device_type)
