"""Every layout loads to the same weights and gives the same outputs."""

import pytest
import torch
from miniature_wan import NUM_TOKENS
from safetensors.torch import save_file
from wan_layouts import DIT_SIZES, LAYOUTS, contiguous, states, write_diffusers, write_original

from wan_alpha.errors import CheckpointError
from wan_alpha.models.base_vae import load_base_vae, vae_kind_of_file
from wan_alpha.models.load import load_dit, load_image_encoder, load_vae, load_wan
from wan_alpha.models.wan import encode_prompts, predict_velocity

TOLERANCE = 1e-5
ALL = ("dit", "text_encoder", "tokenizer", "vae")


@torch.no_grad()
def outputs(pipe):
    """One forward pass of everything that a text-to-video pipeline holds."""
    generator = torch.Generator().manual_seed(5)
    channels, pixels = pipe.vae.model.z_dim, 32
    context = encode_prompts(pipe, ["a red ball"])
    video = torch.rand(1, 3, 5, pixels, pixels, generator=generator) * 2 - 1
    latents = pipe.vae.single_encode(video, "cpu")
    grid = torch.randn(1, channels, 2, 4, 4, generator=generator)
    found = [context, latents, pipe.vae.single_decode(latents, "cpu")]
    for dit in filter(None, (pipe.dit, pipe.dit2)):
        found.append(predict_velocity(dit, grid, torch.tensor([500.0]), context))
    return found


def close(found, expected):
    return len(found) == len(expected) and all(
        one.shape == other.shape and (one - other).abs().max() <= TOLERANCE
        for one, other in zip(found, expected, strict=True)
    )


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """Outputs of the modules themselves, by (kind, experts); nothing was written or loaded."""
    found = {}
    for kind in ("t2v", "ti2v"):
        pipe = load_wan(write_original(tmp_path_factory.mktemp(kind), kind, experts=True), components=ALL)
        for name, module in (("dit", pipe.dit), ("dit_low_noise", pipe.dit2), ("vae", pipe.vae.model)):
            state = states(kind)[name]
            assert all(torch.equal(module.state_dict()[key], tensor) for key, tensor in state.items())
        both = outputs(pipe)
        found[kind, True], found[kind, False] = both, both[:-1]
    return found


@pytest.mark.parametrize("kind", ["t2v", "ti2v"])
@pytest.mark.parametrize(
    ("layout", "experts"),
    [*((layout, False) for layout in LAYOUTS), ("diffusers", True), ("comfyui", True)],
)
def test_a_layout_gives_the_original_layouts_outputs(tmp_path, expected, layout, experts, kind):
    if layout == "pickles" and kind == "ti2v":
        kind = "t2v"
    pipe = load_wan(LAYOUTS[layout](tmp_path, kind, experts=experts), components=ALL)
    assert close(outputs(pipe), expected[kind, experts])
    assert (pipe.dit2 is not None) == experts
    assert pipe.boundary == (None if not experts else 0.9 if layout == "diffusers" else 0.875)
    modules = [pipe.dit, pipe.text_encoder, pipe.vae]
    assert not any(p.requires_grad or p.is_meta for module in modules for p in module.parameters())


@pytest.mark.parametrize("layout", ["original", "diffusers", "comfyui"])
def test_an_image_to_video_model_loads_with_its_image_encoder(tmp_path, layout):
    from diffsynth.pipelines.wan_video import model_fn_wan_video

    folder = LAYOUTS[layout](tmp_path, "i2v")
    pipe = load_wan(folder, components=("dit", "image_encoder"))
    generator = torch.Generator().manual_seed(7)
    image = torch.rand(1, 3, 12, 12, generator=generator)
    latents, condition = (torch.randn(1, c, 1, 4, 4, generator=generator) for c in (16, 20))
    context = torch.randn(1, NUM_TOKENS, DIT_SIZES["text_dim"], generator=generator)
    features = torch.randn(1, 257, 1280, generator=generator)
    encoder = load_image_encoder([write_image_encoder(tmp_path)])
    with torch.no_grad():
        seen = pipe.image_encoder.encode_image([image.clone()])
        assert (seen - encoder.encode_image([image.clone()])).abs().max() <= TOLERANCE and seen.std() > 0
        velocity = model_fn_wan_video(
            pipe.dit,
            latents=latents,
            timestep=torch.tensor([500.0]),
            context=context,
            clip_feature=features,
            y=condition,
        )
    assert velocity.shape == latents.shape and velocity.isfinite().all()
    state = states("i2v")["dit"]
    assert all(torch.equal(pipe.dit.state_dict()[name], tensor) for name, tensor in state.items())
    assert pipe.dit.has_image_input and pipe.dit.require_clip_embedding and pipe.dit.in_dim == 36


def write_image_encoder(folder):
    path = folder / "image_encoder_alone.pth"
    torch.save(states("i2v")["image_encoder"] | {"log_scale": torch.zeros(()), "textual.x": torch.zeros(1)}, path)
    return path


def test_the_vae_has_its_own_statistics(tmp_path):
    from diffsynth.models.wan_video_vae import WanVideoVAE

    folder = write_original(tmp_path)
    vae, plain = load_vae([folder / "Wan2.1_VAE.pth"]), WanVideoVAE()
    assert torch.equal(vae.mean, plain.mean) and torch.equal(vae.std, plain.std)
    assert all(torch.equal(one, other) for one, other in zip(vae.scale, plain.scale, strict=True))


def test_eight_bit_weights_with_scales_are_made_whole(tmp_path):
    state, path = contiguous(states()["dit"]), tmp_path / "dit_fp8_scaled.safetensors"
    small, scales = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}, {}
    for name, tensor in state.items():
        if name.endswith(".weight") and tensor.dim() == 2:
            scale = tensor.abs().max() / 448
            small[name] = (tensor / scale).to(torch.float8_e4m3fn)
            scales[name.replace(".weight", ".scale_weight")] = scale
        else:
            small[name] = tensor
    save_file(small | scales, path, {"num_heads": "4"})
    found = load_dit([path]).state_dict()
    for name, tensor in state.items():
        assert (found[name] - tensor).abs().max() <= 2**-4 * tensor.abs().max() + 1e-8, name
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}


def test_the_base_vae_of_stage_1_comes_from_any_layout(tmp_path):
    for kind, channels in (("t2v", 16), ("ti2v", 48)):
        folder = tmp_path / kind
        folder.mkdir()
        folder = write_diffusers(folder, kind)
        for path in (folder, folder / "vae" / "diffusion_pytorch_model.safetensors"):
            vae = load_base_vae(path)
            assert vae.z_dim == channels == vae_kind_of_file(path).latent_channels
            assert all(torch.equal(vae.state_dict()[name], tensor) for name, tensor in states(kind)["vae"].items())


def test_loading_reports_its_progress(tmp_path):
    steps = []
    pipe = load_wan(write_original(tmp_path), components=("dit", "vae"), callback=lambda *step: steps.append(step))
    num_tensors = len(pipe.dit.state_dict()) + len(pipe.vae.model.state_dict())
    assert steps[-1] == ("loading", num_tensors, num_tensors) and len(steps) >= 2
    assert [done for _, done, _ in steps] == sorted(done for _, done, _ in steps)


def test_large_models_are_read_in_groups(tmp_path, monkeypatch):
    monkeypatch.setattr("wan_alpha.weights.part_reader.GROUP_BYTES", 4096)
    steps = []
    dit = load_dit([write_comfyui_dit(tmp_path)], dtype=torch.bfloat16, callback=steps.append)
    assert len(steps) > 10 and sum(steps) == len(dit.state_dict())
    for name, tensor in states()["dit"].items():
        assert torch.equal(dit.state_dict()[name], tensor.bfloat16())


def write_comfyui_dit(folder):
    path = folder / "wan.safetensors"
    save_file(contiguous(states()["dit"]), path, {"num_heads": "4"})
    return path


def test_the_wrong_file_is_named_for_what_it_is(tmp_path):
    folder = write_original(tmp_path)
    image = tmp_path / "image_vae.safetensors"
    save_file({"decoder.conv_in.weight": torch.zeros(8, 4, 3, 3)}, image)
    flux = tmp_path / "flux.safetensors"
    save_file(
        {"double_blocks.0.img_attn.qkv.weight": torch.zeros(1, 1), "single_blocks.0.linear1.weight": torch.zeros(1, 1)},
        flux,
    )
    lora = tmp_path / "lora.safetensors"
    layer = "blocks.0.self_attn.q"
    save_file({f"{layer}.lora_A.weight": torch.zeros(2, 8), f"{layer}.lora_B.weight": torch.zeros(8, 2)}, lora)
    cases = [
        (load_vae, image, "image_vae.safetensors: .*an image VAE of Stable Diffusion.*take Wan2.1_VAE.pth"),
        (load_vae, folder / "models_t5_umt5-xxl-enc-bf16.pth", "expected a Wan VAE, found a Wan UMT5 text encoder"),
        (load_dit, flux, "expected a Wan DiT, found Flux; this toolkit runs Wan2.1 and Wan2.2 alone"),
        (load_dit, lora, r"found LoRA, rank 2, of 1 layers \(adapter\); give it in the option that is meant for it"),
        (load_dit, folder / "Wan2.1_VAE.pth", "expected a Wan DiT, found a Wan VAE"),
    ]
    for load, path, message in cases:
        with pytest.raises(CheckpointError, match=message) as refused:
            load([path])
        assert str(path) in str(refused.value)
