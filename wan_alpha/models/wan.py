"""A Wan pipeline built from whatever files the user has, and the velocity that its DiT predicts."""

import torch
import torch.nn.functional as F
from diffsynth.core import gradient_checkpoint_forward
from diffsynth.models.wan_video_dit import WanModel, precompute_freqs_cis_3d, sinusoidal_embedding_1d
from diffsynth.models.wan_video_text_encoder import HuggingfaceTokenizer, WanTextEncoder
from torch import nn

from wan_alpha.errors import CheckpointError, ConfigError
from wan_alpha.models.real_arithmetic import sinusoidal_embedding_real, use_real_rotary
from wan_alpha.weights.io import load_state_dict
from wan_alpha.weights.wan_layout import find_wan_files, infer_dit_sizes, infer_text_encoder_sizes, weight_shapes

COMPONENTS = ("dit", "text_encoder", "tokenizer")
MAX_TOKENS = 512


def choose_device(name="auto"):
    """The device to compute on: "auto" is CUDA, else Apple's MPS, else the CPU.

    Raises:
        ConfigError: an unknown name, or a device that this machine or this PyTorch has not.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, available in there.items() if available))
    kind = str(name).partition(":")[0]
    if kind not in there:
        raise ConfigError(f"device {name!r} is unknown: choose auto, {', '.join(there)}")
    if not there[kind]:
        raise ConfigError(f"device {name!r} is not available here: choose auto or cpu")
    return torch.device(name)


def choose_dtype(device, precision="auto"):
    """The dtype to compute in: "fp32", "bf16", or "auto", which is bf16 on CUDA and float32 elsewhere.

    Raises:
        ConfigError: an unknown precision.
    """
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    dtypes["auto"] = torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32
    if precision not in dtypes:
        raise ConfigError(f"precision {precision!r} is unknown: choose auto, fp32, bf16")
    return dtypes[precision]


def load_wan(source, *, components=COMPONENTS, device="cpu", dtype=torch.float32, tokenizer_path=None):
    """Build a diffsynth ``WanVideoPipeline`` with the named parts of a Wan model, in eval mode, without gradients.

    Args:
        source: a folder, files or "model_id:pattern,..."; see ``weights.wan_layout``.
        components: of "dit" (with the low-noise expert as ``pipe.dit2`` where there is one), "text_encoder",
            "tokenizer"; nothing else is read.
        device, dtype: where the weights go and in what dtype; no second copy is held on the way.
        tokenizer_path: folder of the tokenizer where it is not in its usual place.

    Raises:
        CheckpointError: a part that the source has not, or weights that do not fit.
        ConfigError: an unknown component or source.
    """
    unknown = set(components) - set(COMPONENTS)
    if unknown:
        raise ConfigError(f"components {sorted(unknown)} are unknown: choose of {', '.join(COMPONENTS)}")
    from diffsynth.pipelines.wan_video import WanVideoPipeline

    files = find_wan_files(source, tokenizer_path)
    pipe = WanVideoPipeline(device=device, torch_dtype=dtype)
    if "dit" in components:
        pipe.dit = load_dit(_required(files.dit, "DiT", source), device, dtype)
        if files.dit_low_noise:
            pipe.dit2 = load_dit(files.dit_low_noise, device, dtype)
    if "text_encoder" in components:
        pipe.text_encoder = load_text_encoder(_required(files.text_encoder, "text encoder", source), device, dtype)
    if "tokenizer" in components:
        pipe.tokenizer = load_tokenizer(_required(files.tokenizer, "tokenizer (google/umt5-xxl)", source))
    return pipe


def load_dit(paths, device="cpu", dtype=torch.float32):
    """A ``WanModel`` from the shards of one DiT, its size inferred.

    Raises:
        CheckpointError: no Wan DiT, or tensors missing, left over or of another shape.
    """
    sizes = infer_dit_sizes(weight_shapes(paths), paths)
    with torch.device("meta"):
        dit = WanModel(**sizes)
    # The rotary table is no parameter or buffer: made on the meta device, it would stay there.
    dit.freqs = precompute_freqs_cis_3d(sizes["dim"] // sizes["num_heads"])
    return _fill(dit, paths, device, dtype)


def load_text_encoder(paths, device="cpu", dtype=torch.float32):
    """A ``WanTextEncoder`` from its file, its size inferred.

    Raises:
        CheckpointError: no UMT5 encoder in Wan's naming, or tensors missing, left over or of another shape.
    """
    sizes = infer_text_encoder_sizes(weight_shapes(paths), paths)
    with torch.device("meta"):
        encoder = WanTextEncoder(**sizes)
    return _fill(encoder, paths, device, dtype)


def load_tokenizer(folder):
    """The tokenizer in a folder; prompts are padded to 512 tokens, or to the fewer that it was made for.

    Raises:
        CheckpointError: the folder holds no tokenizer, or one that is code of its own.
    """
    try:
        # Without the False, transformers asks on a terminal whether to run the code that a folder may name.
        tokenizer = HuggingfaceTokenizer(
            str(folder), seq_len=MAX_TOKENS, clean="whitespace", local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder}: not a tokenizer folder ({str(error).splitlines()[0]})") from error
    tokenizer.seq_len = min(MAX_TOKENS, tokenizer.tokenizer.model_max_length)
    return tokenizer


@torch.no_grad()
def encode_prompts(pipe, prompts):
    """:func:`encode_prompts_with_gradient` without the gradient."""
    return encode_prompts_with_gradient(pipe, prompts)


def encode_prompts_with_gradient(pipe, prompts):
    """Text context of prompts, each padded with zeros after its last token, as Wan's DiT expects it.

    Args:
        pipe: with text encoder and tokenizer; prompts: list of str.

    Returns:
        (B, L, text_dim) on the text encoder's device, L the tokenizer's length.
    """
    device = pipe.text_encoder.token_embedding.weight.device
    ids, mask = pipe.tokenizer(list(prompts), return_mask=True, add_special_tokens=True)
    mask = mask.to(device)
    context = pipe.text_encoder(ids.to(device), mask)
    return context.masked_fill(mask.unsqueeze(-1) == 0, 0)


def predict_velocity(dit, latents, timesteps, context, *, gradient_checkpointing=False):
    """The velocity a text-to-video Wan DiT predicts: v = noise - latents at noisy = (1-sigma)*latents + sigma*noise.

    The time embedding is computed in float32 whatever the weights are in, since bf16 knows only 294 of the 1000
    timesteps; the blocks run in the weights' dtype, or in autocast's. On MPS rotary and time embedding are computed
    without float64 and complex numbers.

    Args:
        dit: a ``WanModel`` without image input.
        latents: noisy, normalised, (B, C, T, h, w).
        timesteps: 1000*sigma, (B,) float32.
        context: text context, (B, L, text_dim).
        gradient_checkpointing: recompute the blocks in the backward pass instead of keeping their activations.

    Returns:
        (B, C, T, h, w) in the latents' dtype.
    """
    same_batch = timesteps.shape == latents.shape[:1] == context.shape[:1]
    assert same_batch, "latents, timesteps and context differ in batch size"
    if latents.device.type == "mps":
        use_real_rotary(dit)
    dtype = dit.patch_embedding.weight.dtype
    x = dit.patch_embedding(latents.to(dtype))
    grid = x.shape[2:]
    x = x.flatten(2).transpose(1, 2).contiguous()
    time = _time_embedding(dit, timesteps)
    modulation = _apply_float32(dit.time_projection, time).unflatten(1, (6, dit.dim)).to(x.dtype)
    text = dit.text_embedding(context.to(dtype))
    rotary = _rotary_table(dit, grid).to(x.device)
    for block in dit.blocks:
        x = gradient_checkpoint_forward(block, gradient_checkpointing, False, x, text, modulation, rotary)
    x = dit.head(x, time.to(x.dtype))
    return dit.unpatchify(x, grid).to(latents.dtype)


def _time_embedding(dit, timesteps):
    timesteps = timesteps.float()
    if timesteps.device.type == "mps" or getattr(dit, "has_real_rotary", False):
        sinusoid = sinusoidal_embedding_real(dit.freq_dim, timesteps)
    else:
        sinusoid = sinusoidal_embedding_1d(dit.freq_dim, timesteps)
    return _apply_float32(dit.time_embedding, sinusoid)


def _apply_float32(layers, x):
    with torch.autocast(x.device.type, enabled=False):
        for layer in layers:
            x = F.linear(x, layer.weight.float(), layer.bias.float()) if isinstance(layer, nn.Linear) else layer(x)
    return x


def _rotary_table(dit, grid):
    axes = [table[:length] for table, length in zip(dit.freqs, grid, strict=True)]
    views = [(-1, 1, 1), (1, -1, 1), (1, 1, -1)]
    parts = [axis.view(*view, axis.shape[-1]).expand(*grid, -1) for axis, view in zip(axes, views, strict=True)]
    return torch.cat(parts, dim=-1).flatten(0, 2).unsqueeze(1)


def _required(found, what, source):
    if not found:
        raise CheckpointError(f"{source}: expected a {what} there, found none")
    return found


def _fill(module, paths, device, dtype):
    """Replace a meta module's parameters by the files', shard by shard, each checked against the module."""
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found = weight_shapes(paths)
    for problem, names in (("missing", expected.keys() - found.keys()), ("left over", found.keys() - expected.keys())):
        if names:
            some = ", ".join(sorted(names)[:3])
            raise CheckpointError(
                f"{paths[0]}: expected the {len(expected)} tensors of a Wan model, {len(names)} {problem}: {some}"
            )
    for name, shape in expected.items():
        if found[name] != shape:
            raise CheckpointError(f"{paths[0]}: {name}: expected shape {shape}, found {found[name]}")
    for path in paths:
        tensors = {name: tensor.to(device, dtype) for name, tensor in load_state_dict(path).items()}
        module.load_state_dict(tensors, strict=False, assign=True)
    return module.eval().requires_grad_(False)
