"""Build the latent cache: encode captions and clips once, so that stage 2 needs neither text encoder nor VAE."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wan_alpha.alpha.composite import BACKGROUND_COLOR_NAMES
from wan_alpha.alpha.masks import gaussian_ellipse
from wan_alpha.data.buckets import Bucket
from wan_alpha.data.digests import Digests
from wan_alpha.data.latent_cache import (
    CacheIndex,
    CacheItem,
    content_key,
    has_empty_context,
    item_problem,
    read_context_length,
    remove_index,
    remove_strangers,
    write_empty_context,
    write_index,
    write_item,
)
from wan_alpha.data.manifest import Row
from wan_alpha.data.sampling import derive_seed
from wan_alpha.errors import CheckpointError, DataError, NonFiniteError
from wan_alpha.stages.clips import plan_recipe_clips
from wan_alpha.stages.dry_run import foresee_cache
from wan_alpha.stages.memory_check import cache_estimate, check_memory
from wan_alpha.stages.plan_cache import plan_cache
from wan_alpha.training.device import autocast
from wan_alpha.training.meeting import Meeting
from wan_alpha.training.model_options import check_model_options
from wan_alpha.training.performance import measured, recording
from wan_alpha.training.progress import StageBars, StepProgress
from wan_alpha.weights.wan_layout import find_wan_files, vae_file

PREPROCESSING_VERSION = 2  # raise it when frames, renders or ellipses come out differently from the same recipe
PROMPT_BATCH = 8
MEETING_FOLDER = ".processes"


@dataclass(frozen=True)
class CacheReport:
    """What a build did.

    Attributes:
        folder: the cache.
        num_items: items that the index lists, by all processes.
        built, reused: items of this process that were encoded, or found complete.
        removed: items of other clips, captions, settings or weights that were deleted (by the first process).
    """

    folder: Path
    num_items: int
    built: int
    reused: int
    removed: int


@dataclass(frozen=True)
class PlannedItem:
    key: str
    row: Row
    sample_seed: int
    shape: Bucket


def process_shard() -> tuple[int, int]:
    """(rank, world size) as accelerate and torchrun set them; (0, 1) for a single process."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def build_cache(recipe, rank=None, world_size=None) -> CacheReport:
    """Build a cache, or complete one: items that are there already are kept, whatever stopped the last run.

    Every process encodes its share of the missing items. The first one then waits for the others, writes cache.json and
    deletes items that belong to no clip any more; all return when that is done. They meet through files alone.

    Args:
        recipe: a CacheRecipe; ``output_dir`` is the cache's folder.
        rank, world_size: this process's share; None takes them from the environment.

    Returns:
        a :class:`CacheReport` (None of a dry run).

    Raises:
        DataError: a clip cannot be read (its row and file are named); nothing takes its place.
        CheckpointError: weights are not what they claim.
        NonFiniteError: an encoder gave NaN or infinity.
        WanAlphaError: another process failed; its message is repeated.
    """
    check_model_options(recipe)
    if recipe.dry_run:
        return foresee_cache(recipe)
    if rank is None or world_size is None:
        rank, world_size = process_shard()
    with (
        recording("cache", recipe.output_dir, rank == 0),
        Meeting(Path(recipe.output_dir) / MEETING_FOLDER, rank, world_size) as meeting,
    ):
        return _build(recipe, rank, world_size, meeting)


def _build(recipe, rank, world_size, meeting):
    from wan_alpha.models.base_vae import check_token_grid, vae_kind_of_file
    from wan_alpha.models.rgba_vae import RGBAlphaVAE

    folder, is_first = Path(recipe.output_dir), rank == 0
    kind, table = vae_kind_of_file(recipe.model.base_vae), "data.buckets" if recipe.data.buckets.are_used else "data"
    for bucket in recipe.data.shapes:
        check_token_grid(kind, {f"{table}.height": bucket.height, f"{table}.width": bucket.width})
    clips = plan_recipe_clips(recipe.data, recipe.seed, show=is_first)
    if is_first:
        print(clips.summary)
        builds_all = recipe.force or not any(folder.glob("items/*.safetensors"))
        if builds_all:
            check_memory(recipe, plan_cache, cache_estimate(recipe))
    device, dtype = _device_and_dtype(recipe)
    with measured("load: RGBA VAE"):
        vae = RGBAlphaVAE.from_pretrained(recipe.model.base_vae, recipe.model.rgba_weights, recipe.model.decoder_lora)
    fingerprint = vae.fingerprint()
    if not is_first:
        meeting.wait_for("hashes", [0])  # the first process reads the large files, the others its list of hashes
    with StageBars("bytes", is_first) as bars:
        digests = Digests(folder, bars)
        text_fingerprint = _text_fingerprint(recipe.model, digests)
        vae_files = _vae_files(recipe.model, digests)
    digests.callback = None
    plan = plan_items(clips, recipe, dtype, fingerprint, text_fingerprint, digests)
    unique = list({item.key: item for item in plan}.values())
    if is_first:
        digests.save()
        # Where some items are there, only their keys say whether others are missing; what is complete needs no memory.
        is_missing = any(item_problem(folder, item.key) for item in unique)
        if not builds_all and (is_missing or not has_empty_context(folder, text_fingerprint)):
            check_memory(recipe, plan_cache, cache_estimate(recipe))
        meeting.tell("hashes")
    own = unique[rank::world_size]
    missing = [item for item in own if recipe.force or item_problem(folder, item.key)]
    wants_empty = is_first and (recipe.force or not has_empty_context(folder, text_fingerprint))
    if missing or wants_empty:
        remove_index(folder)
        captions = [caption for item in missing for caption in item.row.captions]
        prompts = list(dict.fromkeys([*([""] if wants_empty else []), *captions]))
        contexts, context_length = encode_contexts(
            recipe.model, prompts, device, dtype, show=is_first, offloads=recipe.offload_blocks
        )  # fmt: skip
        if wants_empty:
            write_empty_context(folder, contexts[""], text_fingerprint, context_length)
        encode_items(recipe, vae.to(device), missing, contexts, show=is_first)

    removed = 0
    meeting.tell("share")
    if is_first:
        meeting.wait_for("share")
        keys, context_length = tuple(item.key for item in plan), read_context_length(folder)
        preprocessing = describe_preprocessing(recipe, dtype)
        parts = describe_parts(clips.mixture)
        write_index(
            folder, CacheIndex(keys, fingerprint, text_fingerprint, context_length, preprocessing, vae_files, parts)
        )
        removed = remove_strangers(folder, keys)
        meeting.tell("index")
    else:
        meeting.wait_for("index", [0])
    report = CacheReport(folder, len(plan), len(missing), len(own) - len(missing), removed)
    if is_first:
        print(f"{folder}: {report.built} items built, {report.reused} reused, {report.removed} stale ones removed")
    return report


def describe_preprocessing(recipe, dtype: torch.dtype, shape: Bucket | None = None) -> dict:
    """How clips become tensors, as JSON values: part of every key.

    Args:
        shape: of one clip; None for the cache as a whole, which lists its buckets.
    """
    data = recipe.data
    size = shape or Bucket(data.num_frames, data.height, data.width)
    lists_buckets = shape is None and data.buckets.are_used
    return {
        "version": PREPROCESSING_VERSION,
        "num_frames": size.frames,
        "height": size.height,
        "width": size.width,
        "augment": data.augment,
        "background": recipe.background,
        "hard_threshold": recipe.hard_threshold,
        "dtype": str(dtype).removeprefix("torch."),
        # Only where they are given, so that items of earlier releases keep their keys.
        **({"tiled": True} if recipe.tiled else {}),
        **({"target_fps": data.target_fps} if data.target_fps is not None else {}),
        **({"buckets": [str(bucket) for bucket in data.shapes]} if lists_buckets else {}),
    }


def describe_parts(mixture) -> tuple[dict, ...]:
    """The datasets of a cache, for its index; () for one alone."""
    if len(mixture.parts) == 1:
        return ()
    return tuple(
        {"name": part.name, "num_items": part.num_clips * part.repeat, "weight": part.weight} for part in mixture.parts
    )


def plan_items(clips, recipe, dtype, vae_fingerprint, text_fingerprint, digests) -> list[PlannedItem]:
    """One item per clip and repeat, named by content: neither paths nor the order of rows matter.

    An item's seed, and with it its colour, follows from the recipe's seed and the item's own content, so that a row
    added at the top of a manifest leaves the other items as they are.

    Args:
        clips: a ClipPlan.
    """
    plan, start = [], 0
    for part in clips.mixture.parts:
        places = range(start, start + part.num_clips)
        start += part.num_clips
        for repetition in range(part.repeat):
            for row, shape in ((clips.rows[place], clips.shapes[place]) for place in places):
                sources = [digests.source(file) for file in row.files]
                sample_seed = derive_seed(recipe.seed, repetition, *sources)
                others = {"other_prompts": row.other_prompts} if row.other_prompts else {}
                key = content_key(
                    sources=sources, prompt=row.prompt, kind=row.kind, sample_seed=sample_seed,
                    preprocessing=describe_preprocessing(recipe, dtype, shape), vae=vae_fingerprint,
                    text=text_fingerprint, **row.reading, **others,
                )  # fmt: skip
                plan.append(PlannedItem(key, row, sample_seed, shape))
    return plan


@torch.no_grad()
def encode_contexts(model, prompts, device, dtype, show=True, offloads=False) -> tuple[dict[str, Tensor], int]:
    """Encode captions; the text encoder is freed on return.

    Args:
        model: the recipe's model table; prompts: captions, each once; show: a progress bar.
        offloads: the text encoder's blocks wait in host memory.

    Returns:
        caption to context (L, text_dim) on the CPU, cut where its zero padding begins, and the padded length.
    """
    from wan_alpha.models.block_offload import place
    from wan_alpha.models.wan import encode_prompts, load_wan

    parts, loaded_to = ("text_encoder", "tokenizer"), "cpu" if offloads else device
    with measured("load: text encoder", device=device), StageBars("tensors", show) as bars:
        pipe = load_wan(model.wan, components=parts, device=loaded_to, dtype=dtype, callback=bars)
        place(pipe.text_encoder, device, offloads)
    contexts, context_length = {}, 0
    with StepProgress("captions", len(prompts), enabled=show, unit="captions") as progress:
        for start in range(0, len(prompts), PROMPT_BATCH):
            batch = prompts[start : start + PROMPT_BATCH]
            with measured("encode: captions", len(batch), "captions", device):
                encoded = encode_prompts(pipe, batch).cpu()
            for prompt, context in zip(batch, encoded, strict=True):
                _check_finite(context, f"the text encoder, caption {prompt!r}")
                used = context.abs().sum(dim=1).nonzero()
                contexts[prompt] = context[: int(used.max()) + 1 if len(used) else 1].clone()
                context_length = context.shape[0]
            progress.update(start + len(batch))
    return contexts, context_length


@torch.no_grad()
def encode_items(recipe, vae, items, contexts, show=True) -> None:
    """Encode clips and write their items, one after the other."""
    from wan_alpha.data.operators import HardRenderRGBA, LoadRGBAVideoPair
    from wan_alpha.models.tiling import Tiling

    data = recipe.data
    operator = LoadRGBAVideoPair(
        num_frames=data.num_frames, height=data.height, width=data.width, augment=data.augment,
        mode="random" if data.augment else "head", target_fps=data.target_fps, ping_pong=data.ping_pong,
    ) >> HardRenderRGBA(recipe.background, recipe.hard_threshold)  # fmt: skip
    vae.chunk_size = 1  # the same latents as from the whole clip at once, in bounded memory
    if recipe.tiled:
        vae.tiling = Tiling(stride=vae.spatial_stride)
    device = vae.latent_mean.device
    with StepProgress("clips", len(items), enabled=show, unit="clips") as progress:
        for done, item in enumerate(items, 1):
            try:
                shape = {"shape": item.shape} if data.buckets.are_used else {}
                sample = operator({"row": item.row, "sample_seed": item.sample_seed, **shape})
            except DataError as error:
                raise DataError(f"row {item.row.index} ({item.row.foreground.name}): {error}") from error
            alpha = sample["alpha"][None]
            with measured("encode: clips", 1, "clips", device), autocast(device, recipe.precision):
                raw_latents = vae.encode_raw(sample["hard"][None].to(device), alpha.to(device))
            latents = vae.normalise(raw_latents.float())[0].cpu()
            _check_finite(latents, f"the VAE, row {item.row.index} ({item.row.foreground.name})")
            index = sample["hard_background_index"]
            background = BACKGROUND_COLOR_NAMES[index] if index >= 0 else str(recipe.background)
            ellipse = gaussian_ellipse(alpha, vae.spatial_stride)[0]
            sources = tuple(str(file) for file in item.row.files)
            first, *others = (contexts[caption] for caption in item.row.captions)
            content = CacheItem(
                latents, first, ellipse, item.row.prompt, background, sources, item.row.other_prompts, tuple(others)
            )
            write_item(recipe.output_dir, item.key, content)
            progress.update(done)


def _check_finite(tensor, origin):
    if not tensor.isfinite().all():
        raise NonFiniteError(f"{origin}: NaN or infinity; check the weights, or use precision = fp32")


def _device_and_dtype(recipe):
    from wan_alpha.models.devices import announce, choose_compute

    compute = announce(choose_compute(recipe.device, recipe.precision))
    device = compute.device
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return device, compute.dtype


def _text_fingerprint(model, digests):
    """Hash of the files of text encoder and tokenizer: known without loading eleven gigabytes."""
    files = find_wan_files(model.wan, parts=("text_encoder", "tokenizer"))
    if not files.text_encoder or files.tokenizer is None:
        raise CheckpointError(
            f"{model.wan}: expected a text encoder and a tokenizer (google/umt5-xxl) there, to encode captions"
        )
    return content_key(
        text_encoder=[digests.file(path) for path in files.text_encoder], tokenizer=digests.source(files.tokenizer)
    )


def _vae_files(model, digests):
    names = [name for name in ("base_vae", "rgba_weights", "decoder_lora") if getattr(model, name)]
    paths = {name: vae_file(getattr(model, name)).resolve() for name in names}
    return {name: {"path": str(path), "sha256": digests.file(path)} for name, path in paths.items()}
