"""The RGBA VAE on the 48-channel VAE of Wan2.2: the same class, with the sizes that the weights have."""

import pytest
import torch
from diffsynth.models.wan_video_vae import AttentionBlock
from safetensors.torch import save_file
from wan22 import lively_wan22_vae

from wan_alpha.errors import ConfigError
from wan_alpha.models.base_vae import load_base_vae
from wan_alpha.models.causal_vae import encoder_features, run_blocks
from wan_alpha.models.rgba_vae import RGBAlphaVAE, load_decoder_lora
from wan_alpha.models.tiling import Tiling

TOLERANCE = 1e-4
RANK = 2


@pytest.fixture(scope="module")
def base_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("wan22") / "Wan2.2_VAE.safetensors"
    save_file(lively_wan22_vae().state_dict(), path)
    return path


@pytest.fixture()
def vae(base_file):
    return RGBAlphaVAE.from_pretrained(base_file, lora_rank=RANK)


@pytest.fixture(scope="module")
def clip():
    generator = torch.Generator().manual_seed(5)
    return torch.randn(1, 3, 9, 32, 48, generator=generator).clamp(-1, 1), torch.rand(
        1, 1, 9, 32, 48, generator=generator
    )


def with_random_lora(vae):
    """Both decoders moved away from the base, each its own way."""
    generator = torch.Generator().manual_seed(6)
    for stream in (vae.foreground, vae.alpha):
        for _, pair in stream.named_pairs():
            torch.nn.init.normal_(pair.lora_B, std=0.05, generator=generator)
    return vae


@torch.no_grad()
def test_widths_come_from_the_weights(vae, clip):
    assert (vae.latent_channels, vae.spatial_stride) == (48, 16)
    features = vae.base.encoder.head[2].weight.shape[1]
    assert vae.merge.conv1.weight.shape[:2] == (features, 2 * features)
    latents = vae.encode(*clip)
    assert latents.shape == (1, 48, 3, 2, 3)
    rgb, alpha = vae.decode(latents)
    assert (rgb.shape, alpha.shape) == ((1, 3, 9, 32, 48), (1, 1, 9, 32, 48))


@torch.no_grad()
def test_begins_as_the_base_vae(vae, clip):
    """Merged latents and the colour decoder are exactly diffsynth's, on its own frame-by-frame path."""
    rgb, alpha = clip
    scale = [torch.zeros(48), torch.ones(48)]
    mean = vae.base.encode(rgb, scale)
    torch.testing.assert_close(vae.encode_raw(rgb, alpha), mean, atol=TOLERANCE, rtol=0)
    assert mean.std() > 0.1
    torch.testing.assert_close(vae.decode_raw(mean)[0], vae.base.decode(mean, scale), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("chunk_size", [1, 2])
@torch.no_grad()
def test_chunks_equal_the_whole_clip(vae, clip, chunk_size):
    with_random_lora(vae)
    latents = vae.encode_raw(*clip)
    frames = vae.decode_raw(latents)
    vae.chunk_size = chunk_size
    torch.testing.assert_close(vae.encode_raw(*clip), latents, atol=TOLERANCE, rtol=0)
    for chunked, whole in zip(vae.decode_raw(latents), frames, strict=True):
        torch.testing.assert_close(chunked, whole, atol=TOLERANCE, rtol=0)
    assert not torch.allclose(*frames, atol=1e-2)


@torch.no_grad()
def test_a_batch_is_its_clips(vae):
    generator = torch.Generator().manual_seed(7)
    rgb, alpha = torch.randn(2, 3, 5, 16, 16, generator=generator), torch.rand(2, 1, 5, 16, 16, generator=generator)
    both = vae.encode(rgb, alpha)
    for index in range(2):
        single = vae.encode(rgb[index : index + 1], alpha[index : index + 1])
        torch.testing.assert_close(both[index : index + 1], single, atol=TOLERANCE, rtol=0)


def test_gradients_reach_all_that_trains_and_agree_in_chunks_and_computed_twice(base_file, clip):
    vae = RGBAlphaVAE.from_pretrained(base_file, lora_rank=RANK, init="random")
    with_random_lora(vae).set_trainable("full")
    for block in vae.merge.middle:
        if isinstance(block, AttentionBlock):  # its projection starts at zero, which hides what is behind it
            torch.nn.init.normal_(block.proj.weight, std=0.1)

    def gradients(chunk_size, gradient_checkpointing=False):
        vae.chunk_size, vae.gradient_checkpointing = chunk_size, gradient_checkpointing
        vae.zero_grad()
        rgb, alpha = vae.decode_raw(vae.encode_raw(*clip))
        (rgb.square().mean() + alpha.mean()).backward()
        return {name: p.grad.clone() for name, p in vae.named_parameters() if p.requires_grad}

    whole, chunked, twice = gradients(None), gradients(1), gradients(None, gradient_checkpointing=True)
    assert whole.keys() == chunked.keys() == twice.keys()
    for name, gradient in whole.items():
        assert gradient.norm() > 0, name
        assert (chunked[name] - gradient).norm() <= 1e-3 * gradient.norm(), name
        assert (twice[name] - gradient).norm() <= 1e-3 * gradient.norm(), name


@torch.no_grad()
def test_own_and_released_naming_give_it_back(vae, clip, base_file, tmp_path):
    with_random_lora(vae)
    expected = vae.decode(vae.encode(*clip))
    vae.save(tmp_path / "rgba.safetensors")
    vae.save_released(tmp_path / "rgba.bin")
    for name in ("rgba.safetensors", "rgba.bin"):
        again = RGBAlphaVAE.from_pretrained(base_file, tmp_path / name)
        for found, frames in zip(again.decode(again.encode(*clip)), expected, strict=True):
            torch.testing.assert_close(found, frames, atol=TOLERANCE, rtol=0)
    vae.save_released(tmp_path / "decoder.bin", decoders_only=True)
    load_decoder_lora(RGBAlphaVAE.from_pretrained(base_file, lora_rank=RANK), tmp_path / "decoder.bin")


@torch.no_grad()
def test_tiles_are_cut_on_its_grid(vae):
    latents = torch.randn(1, 48, 1, 4, 8, generator=torch.Generator().manual_seed(8))
    vae.tiling = Tiling(64, 32, stride=16)
    rgb, alpha = vae.decode(latents)
    assert (rgb.shape, alpha.shape) == ((1, 3, 1, 64, 128), (1, 1, 1, 64, 128))
    with pytest.raises(ConfigError, match="tiles on a grid of 8 pixels: this VAE needs 16"):
        vae.tiling = Tiling(64, 32)
    with pytest.raises(ConfigError, match="tile size 72 must be a multiple of the VAE's stride, 16 pixels"):
        Tiling(72, 32, stride=16)


def test_a_size_off_its_grid_is_refused(vae):
    with pytest.raises(ConfigError, match="height 24: the VAE takes multiples of 16, for example 16"):
        vae.encode(torch.zeros(1, 3, 5, 24, 32), torch.zeros(1, 1, 5, 24, 32))


@torch.no_grad()
def test_the_file_of_half_precision_is_read_in_float32(base_file, tmp_path):
    state = {f"model.{name}": value.half() for name, value in lively_wan22_vae().state_dict().items()}
    save_file(state, tmp_path / "prefixed.safetensors")
    half, full = load_base_vae(tmp_path / "prefixed.safetensors"), load_base_vae(base_file)
    video = torch.randn(1, 3, 1, 16, 16, generator=torch.Generator().manual_seed(9))
    means = [run_blocks(vae.encoder.head, encoder_features(vae.encoder, video)) for vae in (half, full)]
    assert means[0].dtype == torch.float32
    torch.testing.assert_close(*means, atol=2e-2, rtol=0)
