"""One pass over a clip, chunks of it, and diffsynth's frame groups: the same numbers and gradients, both Wan VAEs."""

import pytest
import torch
from safetensors.torch import load_file
from wan22 import lively_wan22_vae

from wan_alpha.models.base_vae import load_base_vae
from wan_alpha.models.causal_vae import (
    ClipState,
    decoder_frames,
    encoder_features,
    encoder_features_chunked,
    run_blocks,
)

TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=["wan21", "wan22"])
def vae(request, reference_dir):
    return load_base_vae(reference_dir / "base_vae.safetensors") if request.param == "wan21" else lively_wan22_vae()


@pytest.fixture(scope="module")
def clip(reference_dir, vae):
    """Frames of 4x5 latent cells."""
    if vae.z_dim == 16:
        return load_file(reference_dir / "rgba_vae_io.safetensors")["rgb"]
    return torch.randn(1, 3, 9, 64, 80, generator=torch.Generator().manual_seed(3)).clamp(-1, 1)


def mean_of(vae, features):
    return vae.conv1(run_blocks(vae.encoder.head, features))[:, : vae.z_dim]


def decode_in_chunks(decoder, z, chunk_size):
    state = ClipState()
    return torch.cat([decoder_frames(decoder, chunk, state) for chunk in z.split(chunk_size, dim=2)], dim=2)


def identity_scale(vae):
    return [torch.zeros(vae.z_dim), torch.ones(vae.z_dim)]


@pytest.mark.parametrize("num_frames", [1, 5, 9])
@torch.no_grad()
def test_equals_diffsynth_frame_groups(vae, clip, num_frames):
    video = clip[:, :, :num_frames]
    expected = vae.encode(video, identity_scale(vae))
    raw = mean_of(vae, encoder_features(vae.encoder, video))
    torch.testing.assert_close(raw, expected, atol=TOLERANCE, rtol=0)
    frames = decoder_frames(vae.decoder, vae.conv2(raw))
    torch.testing.assert_close(frames, vae.decode(expected, identity_scale(vae)), atol=TOLERANCE, rtol=0)
    vae.clear_cache()


@pytest.mark.parametrize("chunk_size", [1, 2, 3])
@torch.no_grad()
def test_chunks_equal_the_whole_clip(vae, clip, chunk_size):
    features = encoder_features(vae.encoder, clip)
    torch.testing.assert_close(
        encoder_features_chunked(vae.encoder, clip, chunk_size), features, atol=TOLERANCE, rtol=0
    )
    z = vae.conv2(mean_of(vae, features))
    chunks = decode_in_chunks(vae.decoder, z, chunk_size)
    torch.testing.assert_close(chunks, decoder_frames(vae.decoder, z), atol=TOLERANCE, rtol=0)


def test_gradients_agree_three_ways(vae, clip):
    """Gradients with respect to the video (through the encoder) and the latents (through the decoder)."""
    probe = torch.randn(1, vae.z_dim, 3, 4, 5, generator=torch.Generator().manual_seed(1))

    def through_encoder(encode):
        video = clip.clone().requires_grad_()
        (encode(video) * probe).sum().backward()
        return video.grad

    def through_decoder(decode):
        z = probe.clone().requires_grad_()
        decode(z).square().mean().backward()
        return z.grad

    encoders = [
        lambda video: vae.encode(video, identity_scale(vae)),
        lambda video: mean_of(vae, encoder_features(vae.encoder, video)),
        lambda video: mean_of(vae, encoder_features_chunked(vae.encoder, video, 1)),
    ]
    decoders = [
        lambda z: vae.decode(z, identity_scale(vae)),
        lambda z: decoder_frames(vae.decoder, vae.conv2(z)),
        lambda z: decode_in_chunks(vae.decoder, vae.conv2(z), 2),
    ]
    for passes, gradient in ((encoders, through_encoder), (decoders, through_decoder)):
        expected, *others = [gradient(function) for function in passes]
        assert expected.norm() > 0
        for other in others:
            assert (other - expected).norm() <= 1e-4 * expected.norm()
    vae.clear_cache()


@torch.no_grad()
def test_a_still_takes_the_short_way_to_the_same_numbers(vae, clip):
    still = clip[:, :, :1]
    features = encoder_features(vae.encoder, still)
    torch.testing.assert_close(features, encoder_features(vae.encoder, still, ClipState()), atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_state_keeps_two_frames_a_layer_however_long_the_clip(vae):
    state = ClipState()
    z = torch.randn(1, vae.z_dim, 6, 2, 2)
    sizes = []
    for latent in z.split(1, dim=2):
        decoder_frames(vae.decoder, latent, state)
        sizes.append(sum(frames.numel() for frames in state._frames.values()))
    assert sizes[1] == sizes[-1]
