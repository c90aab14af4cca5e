"""``--dry-run`` of the stages and the cache: the recipe, the data, the steps, what it will take. Nothing is written."""

import os
from collections import Counter

import torch
from safetensors import safe_open

from wan_alpha.data.cached_samples import LatentCacheDataset
from wan_alpha.data.latent_cache import LatentCache, item_path
from wan_alpha.errors import ConfigError
from wan_alpha.losses.backbone_weights import find_backbone_weights
from wan_alpha.losses.perceptual import VGGPerceptualLoss, vgg16_layers
from wan_alpha.models.adapters import KINDS
from wan_alpha.models.devices import choose_device, choose_dtype
from wan_alpha.stages.clips import plan_recipe_clips
from wan_alpha.stages.experts import BOTH, LOW
from wan_alpha.training.foresight import (
    activation_bytes,
    checkpoint_bytes,
    num_steps,
    print_foresight,
    show_bytes,
    training_memory,
    weight_bytes,
)
from wan_alpha.training.sharding import mesh_sizes
from wan_alpha.weights import rgba_vae as naming
from wan_alpha.weights.wan_layout import find_wan_files, weight_shapes


def foresee_vae(recipe):
    """Print what ``train_vae`` of a recipe would do.

    Raises:
        ConfigError, DataError, CheckpointError: what the run would refuse at its start, as far as names and sizes tell.
    """
    from wan_alpha.stages.stage1_vae import ReconstructionModule, build_loss

    data, settings = recipe.data, recipe.training
    plan = plan_recipe_clips(data, recipe.seed, show=False)
    vae = shape_vae(recipe.model)
    module = ReconstructionModule(vae, build_loss(recipe.loss.model_copy(update={"perceptual": "none"})))
    if recipe.loss.perceptual != "none":
        kind = recipe.loss.perceptual
        find_backbone_weights({"lpips": "alex"}.get(kind, kind), recipe.loss.perceptual_weights, kind)
    if recipe.loss.perceptual == "vgg16":
        module.loss.perceptual = VGGPerceptualLoss(features=vgg16_layers().requires_grad_(False))
    largest = largest_bucket(plan.shapes)
    size = (settings.batch_size, 3, largest.frames, largest.height, largest.width)

    def make_loss(module):
        rgb, alpha = torch.empty(size), torch.empty(size[0], 1, *size[2:])
        grey = (0.0, 0.0, 0.0)
        pred_rgb, pred_alpha = module.vae.decode_raw(module.vae.encode_raw(rgb, alpha))
        module.loss(pred_rgb, pred_alpha, rgb, alpha, hard_background=grey, soft_background=grey)

    in_all, num_trained = weight_bytes(vae)
    exported = sum(tensor.numel() for tensor in vae.trained_state().values())
    dtype = choose_dtype(choose_device(settings.device), settings.precision)
    memory = training_memory(
        in_all - 4 * num_trained, num_trained, activation_bytes(module, make_loss, dtype), settings
    )
    if recipe.loss.perceptual == "lpips":
        memory["not counted"] = "the activations of LPIPS's network"
    _print(recipe, clip_table(plan), sum(plan.mixture.samples), plan.summary, memory, num_trained, exported)


def foresee_dit(recipe):
    """Print what ``train_dit`` of a recipe would do; raises as :func:`foresee_vae`."""
    from wan_alpha.models.adapters import add_adapter
    from wan_alpha.models.load import shape_dit
    from wan_alpha.models.wan import predict_velocity
    from wan_alpha.stages.low_memory import saved_bytes

    settings = recipe.training
    cache = LatentCache.open(recipe.cache)
    cache.verify()
    shapes = Counter(item_shape(cache.folder, key) for key in cache.keys)
    source = recipe.model.wan if recipe.model.dit is None else [str(recipe.model.dit)]
    dtype = choose_dtype(choose_device(settings.device), settings.precision)
    dit = shape_dit(_expert_files(find_wan_files(source), recipe.model.expert)).requires_grad_(False)
    dit.requires_grad_(recipe.adapter.kind == "full")
    if recipe.adapter.kind != "full":
        dit.to(dtype)
    if recipe.adapter.kind in KINDS:
        adapter = recipe.adapter
        with torch.device("meta"):
            add_adapter(dit, adapter.kind, adapter.rank, adapter.alpha, adapter.targets)
    num_experts = 2 if recipe.model.expert == BOTH else 1
    in_all, num_trained = (num_experts * number for number in weight_bytes(dit))
    in_all -= num_experts * saved_bytes(dit, recipe)
    batch, text_dim = settings.batch_size, dit.text_embedding[0].in_features
    largest = max(shapes, key=lambda shape: torch.Size(shape).numel())

    def make_loss(dit):
        context = torch.empty(batch, cache.index.context_length, text_dim)
        predict_velocity(dit, torch.empty(batch, *largest), torch.empty(batch), context)

    activations = activation_bytes(dit, make_loss, dtype)
    if settings.gradient_checkpointing:
        # One block at a time, and what goes into each.
        tokens = torch.Size(largest[1:]).numel() // 4
        num_blocks = len(dit.blocks)
        kept = 1 if settings.offload_activations else num_blocks
        activations = activations / num_blocks + kept * batch * tokens * dit.dim * dtype.itemsize
    shards = mesh_sizes(int(os.environ.get("WORLD_SIZE", 1)))
    memory = training_memory(
        in_all - 4 * num_trained, num_trained, activations, settings, shards=1 if shards is None else shards[1]
    )
    table = {f"latents of {' x '.join(map(str, shape))}": f"{count} clips" for shape, count in sorted(shapes.items())}
    if recipe.textual_inversion.placeholder is not None:
        memory["not counted"] = "the text encoder, which the placeholder is learned with"
    dataset = LatentCacheDataset(cache, recipe.seed, recipe.repeat)
    exported = 0 if recipe.adapter.kind == "full" else num_trained
    _print(recipe, table, len(dataset.epoch_samples(0)), dataset.summary(), memory, num_trained, exported)


def _expert_files(files, expert):
    """The files of the expert that is trained, or of one of both, which are equally large."""
    if files.dit_low_noise and expert is None:
        raise ConfigError("model.wan holds two experts: say which is trained, model.expert")
    return files.dit_low_noise if expert == LOW and files.dit_low_noise else files.dit


def foresee_cache(recipe):
    """Print what ``build_cache`` of a recipe would do; raises as :func:`foresee_vae`."""
    data = recipe.data
    plan = plan_recipe_clips(data, recipe.seed, show=False)
    vae = shape_vae(recipe.model)
    files = find_wan_files(recipe.model.wan)
    if not files.text_encoder:
        raise ConfigError(f"{recipe.model.wan}: holds no text encoder, to encode captions")
    dtype = choose_dtype(choose_device(recipe.device), recipe.precision)
    text = sum(torch.Size(shape).numel() for shape in weight_shapes(files.text_encoder).values()) * dtype.itemsize
    sizes = [latent_size(vae, bucket) for bucket in plan.shapes]
    # Latents of all channels and one ellipse, float32; clips occur equally often, or nearly so.
    per_item = sum(4 * torch.Size(size[1:]).numel() * (size[0] + 1) for size in sizes) // len(sizes)
    num_items = sum(plan.mixture.samples)
    shown = sorted({" x ".join(map(str, size)) for size in sizes})
    print_foresight(
        recipe,
        {
            "data": clip_table(plan) | {"items": f"{num_items}, latents of {', '.join(shown)}"},
            "memory, one after the other": {
                "text encoder": show_bytes(text), "RGBA VAE": show_bytes(weight_bytes(vae)[0]),
            },
            "disk": {"latents and ellipses": show_bytes(num_items * per_item),
                     "contexts": "what the captions' tokens take, on top"},
        },
    )  # fmt: skip


def shape_vae(model):
    """The RGBA VAE of a recipe's model table on the meta device: its sizes, without its weights."""
    from wan_alpha.models.base_vae import shape_base_vae
    from wan_alpha.models.rgba_vae import DEFAULT_LORA_RANK, RGBAlphaVAE

    rank, width = getattr(model, "lora_rank", None), getattr(model, "merge_width", None)
    for path in (model.rgba_weights, model.decoder_lora):
        if path is not None:
            weights = naming.read_rgba_vae(path)
            if weights.part("foreground"):
                rank = naming.lora_rank(weights.part("foreground"), path)
            if "conv1.weight" in weights.part("merge"):
                width = weights.part("merge")["conv1.weight"].shape[0]
    base = shape_base_vae(model.base_vae)
    with torch.device("meta"):
        vae = RGBAlphaVAE(base, rank or DEFAULT_LORA_RANK, merge_width=width, init="random")
    vae.chunk_size = getattr(model, "chunk_size", None)
    return vae.set_trainable(getattr(model, "mode", "none"))


def item_shape(folder, key):
    """Shape of a cached clip's latents, (C, t, h, w), from its file's header."""
    with safe_open(item_path(folder, key), framework="pt") as file:
        return tuple(file.get_slice("latents").get_shape())


def largest_bucket(buckets):
    """The bucket of most pixels, frames x height x width."""
    return max(buckets, key=lambda bucket: bucket.frames * bucket.height * bucket.width)


def latent_size(vae, bucket):
    """Shape of the latents of clips of a bucket: (C, t, h, w)."""
    stride = vae.spatial_stride
    return vae.latent_channels, (bucket.frames + 3) // 4, bucket.height // stride, bucket.width // stride


def clip_table(plan):
    """Title -> text of a ClipPlan: clips by kind and by size, and how many were left out."""
    kinds = {f"{kind} clips": str(count) for kind, count in sorted(Counter(row.kind for row in plan.rows).items())}
    sizes = {f"brought to {size}": f"{count} clips" for size, count in sorted(Counter(map(str, plan.shapes)).items())}
    return kinds | sizes | {"left out": f"{len(plan.left_out)} clips"}


def _print(recipe, table, num_samples, summary, memory, num_trained, exported):
    settings, num_processes = recipe.training, int(os.environ.get("WORLD_SIZE", 1))
    step_size, per_epoch, steps = num_steps(num_samples, settings, num_processes)
    table["samples of an epoch"] = str(num_samples)
    shown = {name: value if isinstance(value, str) else show_bytes(value) for name, value in memory.items()}
    checkpoint = checkpoint_bytes(num_trained, settings, exported)
    tables = {
        "data": table,
        "steps": {
            "samples of a step": f"{step_size} (batch {settings.batch_size} x accumulation "
            f"{settings.gradient_accumulation} x {num_processes} process(es))",
            "of an epoch": str(per_epoch),
            "in all": f"{steps} ({steps / per_epoch:.2f} epochs)",
        },
        "memory of a process": {"trained": f"{num_trained} numbers", **shown},
        "disk": {
            "a checkpoint": show_bytes(checkpoint),
            "kept at a time": f"{settings.keep_checkpoints}, and one that is being written",
        },
    }
    print_foresight(recipe, tables, summary)
