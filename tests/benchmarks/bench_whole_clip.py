"""The Wan VAE over a whole clip, in chunks of one latent frame, and in diffsynth's frame groups.

python tests/benchmarks/bench_whole_clip.py --width 96 --size 64 --num_frames 17
"""

import torch
from side_by_side import print_ways, random_vae, run_way, size_options

from wan_alpha.models.causal_vae import (
    ClipState,
    decoder_frames,
    encoder_features,
    encoder_features_chunked,
    run_blocks,
)

LATENT_CHANNELS = 16


def encoders(vae, identity):
    """Ways from a video to the latents' mean; the first is diffsynth's."""

    def mean(features):
        return vae.conv1(run_blocks(vae.encoder.head, features))[:, : vae.z_dim]

    return {
        "frame groups (diffsynth)": lambda video: vae.encode(video, identity),
        "chunks of 1": lambda video: mean(encoder_features_chunked(vae.encoder, video, 1)),
        "whole clip": lambda video: mean(encoder_features(vae.encoder, video)),
    }


def decoders(vae, identity):
    """Ways from latents to frames; the first is diffsynth's."""

    def frame_groups(latents):
        vae.clear_cache()
        return vae.decode(latents, identity)

    def frame_by_frame(latents):
        state = ClipState()
        frames = [decoder_frames(vae.decoder, z, state) for z in vae.conv2(latents).split(1, dim=2)]
        return torch.cat(frames, dim=2)

    return {
        "frame groups (diffsynth)": frame_groups,
        "chunks of 1": frame_by_frame,
        "whole clip": lambda z: decoder_frames(vae.decoder, vae.conv2(z)),
    }


def compare(width, size, num_frames, repeats=1):
    """(direction, with backward pass) -> the three ways."""
    vae = random_vae(width)
    generator = torch.Generator().manual_seed(1)
    video = torch.rand(1, 3, num_frames, size, size, generator=generator) * 2 - 1
    latents = torch.randn(1, LATENT_CHANNELS, (num_frames + 3) // 4, size // 8, size // 8, generator=generator)
    identity = [torch.zeros(LATENT_CHANNELS), torch.ones(LATENT_CHANNELS)]
    directions = {"encode": (encoders(vae, identity), video), "decode": (decoders(vae, identity), latents)}
    return {
        (direction, backward): [run_way(name, run, value, backward, repeats) for name, run in ways.items()]
        for direction, (ways, value) in directions.items()
        for backward in (False, True)
    }


def main():
    options = size_options(__doc__.splitlines()[0]).parse_args()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    shape = f"width {options.width}, {options.num_frames}x{options.size}x{options.size}"
    compared = compare(options.width, options.size, options.num_frames, options.repeats)
    for (direction, backward), ways in compared.items():
        passes = "forward and backward" if backward else "forward"
        print_ways(f"{direction}, {passes}: {shape}, {torch.get_num_threads()} threads", ways)


if __name__ == "__main__":
    main()
