"""RGBAlphaVAE against the released arithmetic, and against itself in every way it can run."""

import json

import pytest
import torch
from diffsynth.models import wan_video_vae
from diffsynth.models.wan_video_vae import AttentionBlock, VideoVAE_, WanVideoVAE, WanVideoVAE38
from safetensors.torch import load_file, save_file

from wan_alpha.errors import CheckpointError, ConfigError
from wan_alpha.models.base_vae import WAN21_VAE, WAN22_VAE, load_base_vae
from wan_alpha.models.rgba_vae import RGBAlphaVAE, load_decoder_lora
from wan_alpha.models.tiling import Tiling
from wan_alpha.weights.io import load_state_dict, read_metadata

TOLERANCE = 1e-4
BFLOAT16 = 1e-1


@pytest.fixture(scope="module")
def io(reference_dir):
    return load_file(reference_dir / "rgba_vae_io.safetensors")


@pytest.fixture()
def vae(reference_dir):
    return RGBAlphaVAE.from_pretrained(
        reference_dir / "base_vae.safetensors", reference_dir / "rgba_vae_checkpoint.bin"
    )


def alpha_of(io):
    return (io["alpha"][:, :1] + 1) / 2


@pytest.mark.parametrize("chunk_size", [None, 1, 2])
@torch.no_grad()
def test_reproduces_the_release(vae, io, chunk_size):
    vae.chunk_size = chunk_size
    features = vae.encode_features(torch.cat([io["hard"], io["alpha"]]))
    torch.testing.assert_close(features[:1], io["features_rgb"], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(features[1:], io["features_alpha"], atol=TOLERANCE, rtol=0)
    raw = vae.encode_raw(io["hard"], alpha_of(io))
    torch.testing.assert_close(raw, io["latents"], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(vae.encode(io["hard"], alpha_of(io)), io["latents_normalized"], atol=TOLERANCE, rtol=0)
    rgb, alpha = vae.decode_raw(io["latents"])
    torch.testing.assert_close(rgb, io["recon_rgb"], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(alpha, io["recon_alpha"], atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_decode_clamps_and_averages_alpha(vae, io):
    rgb, alpha = vae.decode(io["latents_normalized"])
    torch.testing.assert_close(rgb, io["recon_rgb"].clamp(-1, 1), atol=TOLERANCE, rtol=0)
    expected = (io["recon_alpha"].clamp(-1, 1).mean(1, keepdim=True) + 1) / 2
    torch.testing.assert_close(alpha, expected, atol=TOLERANCE, rtol=0)
    streamed = list(vae.iterate_decode(io["latents_normalized"], chunk_size=1))
    assert [frames.shape[2] for frames, _ in streamed] == [1, 4, 4]
    torch.testing.assert_close(torch.cat([frames for frames, _ in streamed], 2), rgb, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("tiling", [None, Tiling(size=16, overlap=8)], ids=["whole", "tiled"])
@torch.no_grad()
def test_a_bfloat16_vae_takes_float32(vae, io, reference_dir, tiling):
    half = RGBAlphaVAE.from_pretrained(
        reference_dir / "base_vae.safetensors", reference_dir / "rgba_vae_checkpoint.bin", dtype=torch.bfloat16
    )
    vae.tiling = half.tiling = tiling

    def outputs(vae):
        yield vae.encode_features(io["hard"])
        yield vae.encode_raw(io["hard"], alpha_of(io))
        yield vae.encode(io["hard"], alpha_of(io))
        yield from vae.decode_raw(io["latents"])
        yield from vae.decode(io["latents_normalized"])
        yield from next(vae.iterate_decode(io["latents_normalized"]))

    for found, expected in zip(outputs(half), outputs(vae), strict=True):
        assert found.dtype == torch.bfloat16
        assert (found - expected).abs().mean() <= BFLOAT16 * expected.abs().mean()


def test_normalising_rounds_once(vae, io):
    raw, latents = io["latents"].bfloat16(), io["latents_normalized"].bfloat16()
    assert torch.equal(vae.normalise(raw), vae.normalise(raw.float()).bfloat16())
    assert torch.equal(vae.denormalise(latents), vae.denormalise(latents.float()).bfloat16())


def composed_gradient(vae, composed):
    """d/dB of sum(composed^2) by hand: 2/rank * composed A^T."""
    pair = vae.alpha.pairs["conv1"]
    gradient = 2 / vae.alpha.rank * composed.flatten(1) @ pair.lora_A.flatten(1).T
    return gradient.view_as(pair.lora_B).detach()


@pytest.mark.parametrize("autocast", [False, True])
def test_decoders_are_composed_in_float32(vae, autocast):
    vae.set_trainable("full")
    pair = vae.alpha.pairs["conv1"]
    exact = torch.einsum("or,ri...->oi...", pair.lora_B.double().flatten(1), pair.lora_A.double()) / vae.alpha.rank
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        composed = vae.alpha.compose(vae.base.decoder)["conv1.weight"]
    torch.testing.assert_close(composed.double(), vae.base.decoder.conv1.weight + exact, atol=1e-6, rtol=0)
    composed.pow(2).sum().backward()
    torch.testing.assert_close(pair.lora_B.grad, composed_gradient(vae, composed), atol=1e-6, rtol=1e-5)


def test_gradients_agree_whole_chunked_and_computed_twice(vae, io):
    vae.set_trainable("full")
    gradients = []
    for chunk_size, vae.gradient_checkpointing in ((None, False), (1, False), (None, True)):
        vae.chunk_size = chunk_size
        vae.zero_grad()
        rgb, alpha = vae.decode_raw(vae.encode_raw(io["hard"], alpha_of(io)))
        (rgb.square().mean() + (alpha * rgb).mean()).backward()
        gradients.append({name: p.grad.clone() for name, p in vae.named_parameters() if p.requires_grad})
    assert len(gradients[0]) == 33 + 2 * 2 * 38
    for name, whole in gradients[0].items():
        for other in gradients[1:]:
            assert (other[name] - whole).norm() <= 1e-4 * whole.norm() + 1e-7, name


def test_computed_twice_less_is_kept(vae, io):
    """Nothing but what goes into each part of the decoders waits for the backward pass."""
    latents = vae.set_trainable("full").encode_raw(io["hard"], alpha_of(io)).detach()
    kept = []
    for vae.gradient_checkpointing in (False, True):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: sizes.append(tensor.numel()) or tensor, lambda x: x
        ):
            rgb, alpha = vae.decode_raw(latents)
        kept.append((sum(sizes), rgb.detach(), alpha.detach()))
    assert kept[1][0] < kept[0][0] / 3
    for ours, plain in zip(kept[1][1:], kept[0][1:], strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


def test_modes_train_what_they_say(vae):
    def trainable():
        return {name.split(".")[0] for name, p in vae.named_parameters() if p.requires_grad}

    assert trainable() == set()
    assert vae.set_trainable("merge") is vae and trainable() == {"merge"}
    vae.set_trainable("full")
    assert trainable() == {"merge", "foreground", "alpha"}
    with pytest.raises(ConfigError, match='"half" is unknown'):
        vae.set_trainable("half")


@torch.no_grad()
def test_decoder_bin_brings_the_decoders(reference_dir, vae, io):
    other = RGBAlphaVAE.from_pretrained(reference_dir / "base_vae.safetensors")
    load_decoder_lora(other, reference_dir / "decoder.bin")
    for got, expected in zip(other.decode_raw(io["latents"]), vae.decode_raw(io["latents"]), strict=True):
        torch.testing.assert_close(got, expected)
    third = RGBAlphaVAE.from_pretrained(
        reference_dir / "base_vae.safetensors", decoder_lora=reference_dir / "decoder.bin"
    )
    torch.testing.assert_close(third.decode_raw(io["latents"])[1], vae.decode_raw(io["latents"])[1])


@torch.no_grad()
def test_identity_start_is_the_base_vae(reference_dir, io):
    vae = RGBAlphaVAE.from_pretrained(reference_dir / "base_vae.safetensors", init="from_vae")
    raw = vae.encode_raw(io["rgb"], alpha_of(io))
    torch.testing.assert_close(raw, io["base_mu"], atol=TOLERANCE, rtol=0)
    rgb, alpha = vae.decode_raw(raw)
    torch.testing.assert_close(rgb, io["base_recon"], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(alpha, rgb)
    direct = RGBAlphaVAE(load_base_vae(reference_dir / "base_vae.safetensors"), lora_rank=2)
    torch.testing.assert_close(direct.encode_raw(io["rgb"], alpha_of(io)), raw)


def test_random_start_depends_on_the_seed_alone(reference_dir):
    base = reference_dir / "base_vae.safetensors"
    torch.manual_seed(5)
    first = RGBAlphaVAE.from_pretrained(base, init="random", merge_width=24, lora_rank=3, seed=1).trained_state()
    torch.manual_seed(6)
    again = RGBAlphaVAE.from_pretrained(base, init="random", merge_width=24, lora_rank=3, seed=1).trained_state()
    other = RGBAlphaVAE.from_pretrained(base, init="random", merge_width=24, lora_rank=3, seed=2).trained_state()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["merge.conv1.weight"], other["merge.conv1.weight"])
    with pytest.raises(ConfigError, match="merge_width = 32"):
        RGBAlphaVAE.from_pretrained(base, init="from_vae", merge_width=24)


@torch.no_grad()
def test_own_file_round_trip(vae, io, tmp_path, reference_dir):
    vae.save(tmp_path / "vae.safetensors", recipe={"seed": 3})
    loaded = RGBAlphaVAE.from_pretrained(reference_dir / "base_vae.safetensors", tmp_path / "vae.safetensors")
    assert all(torch.equal(value, loaded.trained_state()[name]) for name, value in vae.trained_state().items())
    assert loaded.fingerprint() == vae.fingerprint()
    metadata = read_metadata(tmp_path / "vae.safetensors")
    assert metadata["format"] == "wan_alpha.rgba_vae" and metadata["lora_rank"] == "4"
    assert json.loads(metadata["recipe"]) == {"seed": 3} and len(metadata["base_vae_sha256"]) == 64


def test_released_file_has_the_released_keys_and_values(vae, tmp_path, reference_dir):
    vae.save_released(tmp_path / "all.bin")
    vae.save_released(tmp_path / "decoder.bin", decoders_only=True)
    for name, expected in (("all.bin", "rgba_vae_checkpoint.bin"), ("decoder.bin", "decoder.bin")):
        own = torch.load(tmp_path / name, weights_only=True)
        released = torch.load(reference_dir / expected, weights_only=True)
        assert set(own) == set(released)
        assert all(torch.equal(own[key], released[key]) for key in released)


def read_released_independently(path, base, stream):
    """Decoder weights as PEFT would merge them: nothing of the package's own reading is used."""
    state = torch.load(path, weights_only=True)
    weights = {key.removeprefix("decoder."): value for key, value in base.items() if key.startswith("decoder.")}
    for key in [key for key in state if key.startswith(f"{stream}.decoder.") and "lora_A" in key]:
        down, up = state[key], state[key.replace("lora_A", "lora_B")]
        name = key.removeprefix(f"{stream}.decoder.").removesuffix(".lora_A.default.weight").removesuffix(".conv3D")
        weights[f"{name}.weight"] = weights[f"{name}.weight"] + torch.einsum(
            "or,ri...->oi...", up.flatten(1), down
        ) / len(down)
    return weights


@torch.no_grad()
def test_released_file_read_independently_decodes_the_same(vae, io, tmp_path, reference_dir):
    with torch.no_grad():
        for pair in vae.alpha.pairs.values():
            pair.lora_B.add_(0.01)
    vae.save_released(tmp_path / "all.bin")
    base = load_file(reference_dir / "base_vae.safetensors")
    plain = load_base_vae(reference_dir / "base_vae.safetensors")
    plain.decoder.load_state_dict(read_released_independently(tmp_path / "all.bin", base, "vae_pha"))
    expected = plain.decode(io["latents"], [torch.zeros(16), torch.ones(16)])
    torch.testing.assert_close(vae.decode_raw(io["latents"])[1], expected, atol=TOLERANCE, rtol=0)


def full_checkpoint(vae, reference_dir):
    """A full released checkpoint: the key list pins its naming, the values come from the base VAE."""
    base, trained = (
        load_file(reference_dir / "base_vae.safetensors"),
        load_state_dict(reference_dir / "rgba_vae_checkpoint.bin"),
    )
    state = {}
    for key in json.loads((reference_dir / "full_checkpoint_keys.json").read_text()):
        plain = key.split(".", 1)[1].replace(".conv3D", "").replace(".base_layer", "")
        state[key] = trained[key] if key in trained else base[plain]
    return state


def test_reads_a_full_released_checkpoint(vae, tmp_path, reference_dir):
    state = full_checkpoint(vae, reference_dir)
    torch.save(state, tmp_path / "pytorch_model.bin")
    base = reference_dir / "base_vae.safetensors"
    loaded = RGBAlphaVAE.from_pretrained(base, tmp_path / "pytorch_model.bin")
    assert all(torch.equal(value, loaded.trained_state()[name]) for name, value in vae.trained_state().items())
    state["vae_fgr.encoder.conv1.weight"] = state["vae_fgr.encoder.conv1.weight"] + 1
    torch.save(state, tmp_path / "other.bin")
    with pytest.raises(CheckpointError, match="other.bin: encoder.conv1.weight differs from the base VAE"):
        RGBAlphaVAE.from_pretrained(base, tmp_path / "other.bin")


@torch.no_grad()
def test_one_tile_is_the_whole_frame_and_many_keep_its_size(vae):
    video, alpha = torch.linspace(-1, 1, 128).expand(1, 3, 5, 96, 128), torch.full((1, 1, 5, 96, 128), 0.7)
    whole = vae.encode_raw(video, alpha)
    rgb, _ = vae.decode_raw(whole)
    vae.tiling = Tiling(size=256, overlap=64)
    torch.testing.assert_close(vae.encode_raw(video, alpha), whole)
    torch.testing.assert_close(vae.decode_raw(whole)[0], rgb)
    vae.tiling = Tiling(size=64, overlap=32)
    assert vae.encode_raw(video, alpha).shape == whole.shape
    tiled = vae.decode_raw(whole)[0]
    assert tiled.shape == rgb.shape and not torch.equal(tiled, rgb)
    vae.chunk_size = 1
    torch.testing.assert_close(vae.decode_raw(whole)[0], tiled, atol=TOLERANCE, rtol=0)


def make_local(vae):
    """Without attention a latent sees 19.5 latents around it (encoder, merge block), a pixel 17.25 (decoder)."""
    for module in (*vae.base.modules(), *vae.merge.modules()):
        if isinstance(module, AttentionBlock):
            module.proj.weight.zero_()
            module.proj.bias.zero_()
    for decoder in (vae.foreground, vae.alpha):
        decoder.pairs["middle/1/proj"].lora_B.zero_()


@pytest.mark.parametrize("axis", [3, 4], ids=["rows", "columns"])
@torch.no_grad()
def test_tiles_are_right_wherever_their_borders_are_far(vae, axis):
    """Tiles of latents 0..64 and 20..84: far from 64 or alone the one is right, far from 20 or alone the other."""
    make_local(vae)
    generator = torch.Generator().manual_seed(0)
    shape = [1, 3, 1, 8, 8]
    shape[axis] = 84 * 8
    video, alpha = torch.rand(shape, generator=generator) * 2 - 1, torch.rand(1, 1, *shape[2:], generator=generator)
    whole = vae.encode_raw(video, alpha)
    frames = vae.decode_raw(whole)
    vae.tiling = Tiling(size=64 * 8, overlap=64)
    tiled, tiled_frames = vae.encode_raw(video, alpha), vae.decode_raw(whole)
    for found, expected, scale in ((tiled, whole, 1), *((a, b, 8) for a, b in zip(tiled_frames, frames, strict=True))):
        right = (found - expected).abs().amax(dim=[dim for dim in range(5) if dim != axis]) <= TOLERANCE
        for start, stop in ((0, 20), (40, 44), (64, 84)):
            assert right[start * scale : stop * scale].all()
        assert not right.all()  # the borders are felt near them: the frame was tiled


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 8, 16, 16), "4n\\+1 frames, for example 5 or 9"),
        ((1, 3, 5, 20, 16), "height 20"),
        ((1, 3, 5, 16, 31), "width 31"),
    ],
)
def test_sizes_off_the_grid_are_refused(vae, shape, message):
    with pytest.raises(ConfigError, match=message):
        vae.encode(torch.zeros(shape), torch.zeros(shape[0], 1, *shape[2:]))


def test_streams_must_match(vae):
    with pytest.raises(ConfigError, match="alpha must be"):
        vae.encode(torch.zeros(1, 3, 5, 16, 16), torch.zeros(1, 3, 5, 16, 16))


def test_files_that_are_not_what_they_claim(reference_dir, tmp_path, vae):
    base, trained = reference_dir / "base_vae.safetensors", load_state_dict(reference_dir / "rgba_vae_checkpoint.bin")

    def bad(name, state):
        save_file(state, tmp_path / name)
        return tmp_path / name

    def convolutions(first, last):
        ends = {"encoder.conv1.weight": torch.zeros(first), "conv2.weight": torch.zeros(last)}
        return ends | {"decoder.conv1.weight": torch.zeros(16, *first[1:])}

    stem = load_file(base)
    merge_only = {key: value for key, value in trained.items() if key.startswith("middle")}
    cases = [
        (bad("dora.safetensors", {"blocks.0.q.lora_A.weight": torch.zeros(2, 2)}), None, "expected a Wan VAE"),
        (bad("image.safetensors", convolutions((4, 3, 3, 3), (16, 16, 1, 1))), None, "an image VAE"),
        (bad("wan22.safetensors", convolutions((4, 12, 3, 3, 3), (48, 48, 1, 1, 1))),
         None, "expected the 196 tensors of a Wan model, 193 missing"),
        (bad("mixed.safetensors", convolutions((4, 12, 3, 3, 3), (16, 16, 1, 1, 1))),
         None, "12 input and 16 latent channels; the Wan2.1 VAE has 3 and 16; the Wan2.2 VAE has 12 and 48"),
        (bad("short.safetensors", {k: stem[k] for k in stem if "middle" not in k}), None, "of a Wan model, .* missing"),
        (base, base, "not RGBA VAE weights"),
        (base, bad("merge.safetensors", merge_only), "holds no decoders"),
        (base, reference_dir / "decoder.bin", "decoder.bin: holds only the decoders.*belongs to decoder_lora"),
        (base, bad("half.safetensors", {k: v for k, v in trained.items() if "vae_pha" not in k}),
         "foreground decoder alone"),
        (base, bad("gap.safetensors", {k: v for k, v in trained.items() if "head.0" not in k}),
         "merge: 1 weights are missing"),
    ]  # fmt: skip
    for base_path, rgba_path, message in cases:
        with pytest.raises(CheckpointError, match=message):
            RGBAlphaVAE.from_pretrained(base_path, rgba_path)
    with pytest.raises(CheckpointError, match="alpha decoder alone"):
        alone = bad("alone.safetensors", {k: v for k, v in trained.items() if "vae_fgr" not in k})
        RGBAlphaVAE.from_pretrained(base, alone, reference_dir / "decoder.bin")
    RGBAlphaVAE.from_pretrained(base, tmp_path / "merge.safetensors", reference_dir / "decoder.bin")
    vae.save(tmp_path / "own.safetensors")
    shifted = bad("other_base.safetensors", {key: value + 0.1 for key, value in stem.items()})
    with pytest.raises(CheckpointError, match="trained on another base VAE"):
        RGBAlphaVAE.from_pretrained(shifted, tmp_path / "own.safetensors")


def test_contract_with_diffsynth(monkeypatch):
    """The statistics and signatures of diffsynth that this package relies on."""
    # Its wrappers leave widths at the full ones; such models take seconds to draw, and no number of them is looked at.
    with monkeypatch.context() as patch:
        patch.setattr(wan_video_vae, "VideoVAE_", lambda **options: VideoVAE_(**options, dim=8))
        wan = WanVideoVAE(z_dim=16)
    monkeypatch.setattr(wan_video_vae, "VideoVAE38_", lambda **options: WAN22_VAE.build(options["dim"], 8))
    wan22 = WanVideoVAE38(dim=8)
    torch.testing.assert_close(wan.mean, torch.tensor(WAN21_VAE.latent_mean))
    torch.testing.assert_close(wan.std, torch.tensor(WAN21_VAE.latent_std))
    assert torch.equal(torch.tensor(WAN22_VAE.latent_mean), wan22.mean)
    assert torch.equal(torch.tensor(WAN22_VAE.latent_std), wan22.std)
    assert wan22.upsampling_factor == WAN22_VAE.spatial_stride and wan22.z_dim == WAN22_VAE.latent_channels
