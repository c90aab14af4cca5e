"""What this package relies on in diffsynth: signatures, attributes, and that our names are the released files' names.

diffsynth changes signatures between minor versions. When one of these fails, the rest of the suite may still pass and
a user's run may not.
"""

import ast
import inspect
from importlib import import_module, metadata
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from safetensors.torch import save_file
from torch import nn

from wan_alpha.weights.wan_layout import infer_dit_sizes, infer_text_encoder_sizes, weight_shapes

PACKAGE = Path(__file__).parents[2] / "wan_alpha"
X = object()  # stands for any argument

# Name in diffsynth -> the calls of it in this package, as (positional arguments, names of keyword arguments).
CALLS = {
    "core.ModelConfig": [((), ("model_id", "origin_file_pattern"))],
    "core.ModelConfig.download_if_necessary": [((X,), ())],
    "core.ModelConfig.reset_local_model_path": [((X,), ())],
    "core.gradient_checkpoint_forward": [((X, X, X, X), ("context", "t_mod", "freqs"))],
    "core.offload_training.memory_buffer.PinnedArenaPool": [],
    "core.offload_training.memory_buffer.PinnedArenaPool.from_model": [((X,), ())],
    "core.offload_training.memory_buffer.PinnedArenaPool.allocate_like": [((X, X), ())],
    "core.quant.QuantizeConfig": [((), ("method", "target_modules"))],
    "core.quant.QuantizeConfig.quantize_model": [((X, X), ("compute_device", "model_device"))],
    "core.quant.QuantBackend.dequantize_to_linear": [((X, X, X), ())],
    "core.data.operators.DataProcessingOperator": [((), ())],
    "core.data.operators.DataProcessingOperator.__rshift__": [((X, X), ())],
    "diffusion.DiffusionTrainingModule": [((), ())],
    "diffusion.DiffusionTrainingModule.switch_pipe_to_training_mode": [
        ((X, X), ("trainable_models", "lora_base_model", "lora_target_modules", "lora_rank"))
    ],
    "diffusion.DiffusionTrainingModule.mapping_lora_state_dict": [((X, X), ())],
    "diffusion.FlowMatchScheduler": [((X,), ())],
    "diffusion.FlowMatchScheduler.set_timesteps": [
        ((X, X), ("training", "shift")),
        ((X, X), ("denoising_strength", "shift")),
    ],
    "diffusion.FlowMatchScheduler.step": [((X, X, X, X), ())],
    "models.wan_video_dit.SelfAttention": [((X, X), ())],
    "models.wan_video_dit.WanModel": [
        (
            (),
            (
                "dim", "in_dim", "ffn_dim", "out_dim", "text_dim", "freq_dim", "eps", "patch_size", "num_heads",
                "num_layers", "has_image_input", "has_image_pos_emb", "has_ref_conv", "seperated_timestep",
                "require_clip_embedding", "require_vae_embedding", "fuse_vae_embedding_in_latents",
            ),
        ),
    ],
    "models.wan_video_dit.WanModel.unpatchify": [((X, X, X), ())],
    "models.wan_video_dit.DiTBlock.forward": [((X, X), ("context", "t_mod", "freqs"))],
    "models.wan_video_dit.Head.forward": [((X, X, X), ())],
    "models.wan_video_dit.precompute_freqs_cis_3d": [((X,), ())],
    "models.wan_video_dit.sinusoidal_embedding_1d": [((X, X), ())],
    "models.wan_video_text_encoder.HuggingfaceTokenizer": [((X,), ("seq_len", "clean", "local_files_only"))],
    "models.wan_video_text_encoder.HuggingfaceTokenizer.__call__": [((X, X), ("return_mask", "add_special_tokens"))],
    "models.wan_video_text_encoder.WanTextEncoder": [
        ((), ("vocab", "dim", "dim_attn", "dim_ffn", "num_heads", "num_layers", "num_buckets", "shared_pos"))
    ],
    "models.wan_video_text_encoder.WanTextEncoder.forward": [((X, X, X), ())],
    "models.wan_video_vae.AttentionBlock": [((X,), ())],
    "models.wan_video_vae.Down_ResidualBlock": [],
    "models.wan_video_vae.Up_ResidualBlock": [],
    "models.wan_video_vae.WanVideoVAE": [((), ())],
    "models.wan_video_vae.WanVideoVAE38": [((), ())],
    "models.wan_video_image_encoder.WanImageEncoder": [((), ())],
    "models.wan_video_image_encoder.VisionTransformer": [
        (
            (),
            (
                "image_size", "patch_size", "dim", "num_heads", "mlp_ratio", "num_layers", "out_dim", "activation",
            ),
        ),
    ],
    "models.wan_video_vae.VideoVAE38_": [((), ("dim", "z_dim", "dec_dim"))],
    "models.wan_video_vae.patchify": [((X, X), ())],
    "models.wan_video_vae.unpatchify": [((X, X), ())],
    "models.wan_video_vae.CausalConv3d": [((X, X, X), ("padding",))],
    "models.wan_video_vae.CausalConv3d.forward": [((X, X, X), ())],
    "models.wan_video_vae.RMS_norm": [((X,), ("images",))],
    "models.wan_video_vae.Resample": [((X, X), ())],
    "models.wan_video_vae.ResidualBlock": [((X, X), ())],
    "models.wan_video_vae.VideoVAE_": [((), ("dim", "z_dim"))],
    "pipelines.wan_video.WanVideoPipeline": [((), ("device", "torch_dtype"))],
}  # fmt: skip

# Keywords that a signature takes as **kwargs only, where a renamed one would vanish without a word. These are known to
# arrive: at Conv3d, at the Wan schedule, at transformers' tokenizer, in the tokenizer's own reading of its kwargs, and
# at the block that is checkpointed, which the table has too.
PASSED_ON = {"padding", "shift", "local_files_only", "return_mask", "add_special_tokens", "context", "t_mod", "freqs"}

# What is read from instances: the maker below -> dotted attributes.
ATTRIBUTES = {
    "dit": (
        "dim", "in_dim", "freq_dim", "patch_embedding.weight", "text_embedding.0.in_features", "time_embedding",
        "time_projection", "blocks.0.self_attn.q", "blocks.0.self_attn.k", "blocks.0.self_attn.v",
        "blocks.0.self_attn.o", "blocks.0.self_attn.norm_q", "blocks.0.self_attn.norm_k", "blocks.0.self_attn.attn",
        "blocks.0.self_attn.num_heads", "blocks.0.self_attn.dim", "blocks.0.cross_attn.q", "blocks.0.ffn.0.weight",
        "blocks.0.ffn.2.weight", "head.head.weight", "freqs",
    ),
    "vae": (
        "z_dim", "conv1.weight", "conv2.weight", "encoder.conv1.weight", "encoder.downsamples", "encoder.middle",
        "encoder.head.0.gamma", "encoder.head.2.weight", "decoder.conv1.weight", "decoder.middle", "decoder.upsamples",
        "decoder.head",
    ),
    "text_encoder": ("token_embedding.weight", "blocks.0.attn.q.weight", "blocks.0.ffn.fc1.weight"),
    "pipe": ("dit", "dit2", "vae", "text_encoder", "tokenizer", "scheduler", "units", "freeze_except"),
    "scheduler": ("timesteps", "sigmas", "linear_timesteps_weights"),
    "model_config": ("path", "local_model_path"),
}  # fmt: skip

T2V = {
    "in_dim": 16, "out_dim": 16, "text_dim": 4096, "freq_dim": 256, "eps": 1e-6, "patch_size": (1, 2, 2),
    "has_image_input": False,
}  # fmt: skip
DIT_SIZES = {
    "1.3B": T2V | {"dim": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 30},
    "14B": T2V | {"dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40},
}
UMT5_SIZES = {
    "vocab": 256384, "dim": 4096, "dim_attn": 4096, "dim_ffn": 10240, "num_heads": 64, "num_layers": 24,
    "num_buckets": 32, "shared_pos": False,
}  # fmt: skip


def resolve(dotted):
    """The object behind a name within diffsynth: as much of it as is a module, then attributes."""
    parts = dotted.split(".")
    for split in range(len(parts) - 1, 0, -1):
        try:
            found = import_module("diffsynth." + ".".join(parts[:split]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[split:]:
            found = getattr(found, attribute)
        return found
    raise AssertionError(f"diffsynth has no {dotted}")


def on_meta(dotted, **sizes):
    with torch.device("meta"):
        return resolve(dotted)(**sizes)


def make(name):
    if name == "dit":
        return on_meta("models.wan_video_dit.WanModel", **DIT_SIZES["1.3B"] | {"num_layers": 1})
    if name == "vae":
        return on_meta("models.wan_video_vae.VideoVAE_", dim=96, z_dim=16)
    if name == "vae22":
        return on_meta("models.wan_video_vae.VideoVAE38_", dim=160, z_dim=48, dec_dim=256)
    if name == "text_encoder":
        return on_meta("models.wan_video_text_encoder.WanTextEncoder", **UMT5_SIZES | {"num_layers": 1})
    if name == "pipe":
        return resolve("pipelines.wan_video.WanVideoPipeline")(device="cpu", torch_dtype=torch.float32)
    if name == "scheduler":
        scheduler = resolve("diffusion.FlowMatchScheduler")("Wan")
        scheduler.set_timesteps(1000, training=True, shift=5.0)
        return scheduler
    return resolve("core.ModelConfig")(model_id="a/b", origin_file_pattern="*.safetensors")


def test_the_installed_version_is_the_one_that_setup_asks_for():
    wanted = [Requirement(text) for text in metadata.requires("wan_alpha")]
    wanted = next(requirement for requirement in wanted if requirement.name == "diffsynth")
    assert wanted.specifier.contains(metadata.version("diffsynth"))


def test_the_table_names_everything_that_the_package_imports():
    imported = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("diffsynth"):
                imported |= {f"{node.module}.{alias.name}".removeprefix("diffsynth.") for alias in node.names}
    assert imported <= CALLS.keys() | {"models.wan_video_dit"}  # whose switches of attention the next test holds


def test_diffsynths_attention_is_chosen_by_switches():
    from wan_alpha.models.devices import _SWITCHES

    assert all(isinstance(getattr(resolve("models.wan_video_dit"), switch), bool) for switch in _SWITCHES.values())


@pytest.mark.parametrize("dotted", CALLS)
def test_signatures_take_our_calls(dotted):
    signature = inspect.signature(resolve(dotted))
    for positional, keywords in CALLS[dotted]:
        bound = signature.bind(*positional, **dict.fromkeys(keywords, X))
        catch_all = [name for name, one in signature.parameters.items() if one.kind is one.VAR_KEYWORD]
        swallowed = {name for one in catch_all for name in bound.arguments.get(one, {})}
        assert swallowed <= PASSED_ON


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_instances_have_what_is_read(name):
    instance = make(name)
    for dotted in ATTRIBUTES[name]:
        found = instance
        for part in dotted.split("."):
            found = found[int(part)] if part.isdigit() else getattr(found, part)


def test_the_training_module_calls_our_adapter_injection():
    """WanAlphaTrainingModule overrides this method; its caller passes these names."""
    method = resolve("diffusion.DiffusionTrainingModule").add_lora_to_model
    assert list(inspect.signature(method).parameters) == [
        "self", "model", "target_modules", "lora_rank", "lora_alpha", "upcast_dtype",
    ]  # fmt: skip


def test_schedulers_shift_and_bell():
    """shift is swallowed by **kwargs: what it does is held by numbers. sigma' = s*sigma / (1 + (s - 1)*sigma)."""
    scheduler = make("scheduler")
    sigmas = torch.linspace(1, 0, 1001)[:-1]
    torch.testing.assert_close(scheduler.sigmas, 5 * sigmas / (1 + 4 * sigmas))
    torch.testing.assert_close(scheduler.timesteps, 1000 * scheduler.sigmas)
    bell = torch.exp(-2 * (scheduler.sigmas - 0.5) ** 2)
    bell = bell - bell.min()
    torch.testing.assert_close(scheduler.linear_timesteps_weights, bell * 1000 / bell.sum())


@pytest.mark.parametrize("name", ["vae", "vae22"])
def test_the_vae_is_made_of_blocks_that_the_whole_clip_walk_knows(name):
    """A block of another kind would be called without its past, and give other numbers without a word."""
    names = ("AttentionBlock", "CausalConv3d", "Resample", "Resample38", "ResidualBlock", "RMS_norm")
    known = {resolve(f"models.wan_video_vae.{name}") for name in names} | {nn.SiLU}
    vae = make(name)
    rows = [vae.encoder.middle, vae.encoder.head, vae.decoder.middle, vae.decoder.head]
    if name == "vae":
        rows += [vae.encoder.downsamples, vae.decoder.upsamples]
    else:
        rows += [level.downsamples for level in vae.encoder.downsamples]
        rows += [level.upsamples for level in vae.decoder.upsamples]
        assert {type(level).__name__ for level in vae.encoder.downsamples} == {"Down_ResidualBlock"}
        assert {type(level).__name__ for level in vae.decoder.upsamples} == {"Up_ResidualBlock"}
        assert list(inspect.signature(vae.decoder.upsamples[0].avg_shortcut.forward).parameters) == ["x", "first_chunk"]
    for row in rows:
        assert {type(block) for block in row} <= known
    causal = resolve("models.wan_video_vae.CausalConv3d")(2, 2, 3, padding=1)
    assert causal._padding == (1, 1, 1, 1, 2, 0) and tuple(causal.padding) == (0, 0, 0)
    modes = {block.mode for row in rows for block in row if type(block).__name__.startswith("Resample")}
    assert modes == {"upsample2d", "upsample3d", "downsample2d", "downsample3d"}


def shapes_of(module):
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def registered(module, name):
    """diffsynth's entries for released files with exactly these names and shapes."""
    configs = import_module("diffsynth.configs").MODEL_CONFIGS
    key = import_module("diffsynth.core.loader.file").hash_state_dict_keys(module.state_dict())
    return [config for config in configs if config["model_hash"] == key and config["model_name"] == name]


@pytest.mark.parametrize("size", DIT_SIZES)
def test_our_dit_is_the_released_one(size, tmp_path):
    sizes = DIT_SIZES[size]
    dit = on_meta("models.wan_video_dit.WanModel", **sizes)
    (entry,) = registered(dit, "wan_video_dit")
    assert entry["extra_kwargs"] | {"patch_size": (1, 2, 2)} == sizes
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    save_file({}, path)  # no head count in it, as in the released files
    inferred = infer_dit_sizes(shapes_of(dit), [path])
    assert inferred == sizes | {"has_image_pos_emb": False, "has_ref_conv": False}


def test_our_vaes_are_the_released_ones():
    assert registered(make("vae"), "wan_video_vae")
    assert registered(make("vae22"), "wan_video_vae")


def test_our_text_encoder_is_the_released_one():
    encoder = on_meta("models.wan_video_text_encoder.WanTextEncoder", **UMT5_SIZES)
    assert registered(encoder, "wan_video_text_encoder")
    assert infer_text_encoder_sizes(shapes_of(encoder), ["models_t5_umt5-xxl-enc-bf16.pth"]) == UMT5_SIZES


def test_the_miniature_has_the_released_names(tmp_path):
    """What the other tests load differs from the released files in sizes alone."""
    from miniature_wan import write_wan_folder

    write_wan_folder(tmp_path)
    released = shapes_of(on_meta("models.wan_video_dit.WanModel", **DIT_SIZES["1.3B"]))
    ours = weight_shapes(sorted(tmp_path.glob("diffusion_pytorch_model*.safetensors")))
    assert set(ours) == {name for name in released if not name.startswith("blocks.") or int(name.split(".")[1]) < 2}
