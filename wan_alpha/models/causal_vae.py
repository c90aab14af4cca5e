"""The Wan VAE over a whole clip in one pass, or in chunks that remember what came before.

diffsynth runs the Wan VAE frame group by frame group and carries a list of cached features from group to group. The
same numbers come from one pass over the clip, because every module that looks along time is causal:

* a causal convolution sees two zero frames before the clip;
* ``upsample3d`` doubles every latent frame but the first, and the first is not part of the others' context;
* ``downsample3d`` keeps the first frame and convolves the clip with stride 2 and no padding.

The 48-channel VAE of Wan2.2 is built of the same blocks, with two things around them:

* 2x2 pixels are one place of 12 channels (:func:`patchify`), so that its latents are 16 times smaller than the frames;
* each level has a shortcut that averages (down) or repeats (up) channels, pixels and frames. It too counts from the
  clip's first frame: down, a zero frame stands before it; up, the first of its two copies is dropped.

A :class:`ClipState` carries those contexts from chunk to chunk; without one, a call is a whole clip. These functions
walk diffsynth's own modules (``Encoder3d``, ``Decoder3d``, ``Encoder3d_38``, ``Decoder3d_38`` and their blocks) and
hold no weights.
"""

import math

import torch
import torch.nn.functional as F
from diffsynth.models.wan_video_vae import (
    AttentionBlock,
    CausalConv3d,
    Down_ResidualBlock,
    Resample,
    ResidualBlock,
    RMS_norm,
    Up_ResidualBlock,
    patchify,
    unpatchify,
)
from torch import nn

TEMPORAL_STRIDE = 4
RGB_CHANNELS = 3


class ClipState:
    """What each temporal module remembers of the frames before the current chunk."""

    def __init__(self):
        self._frames = {}

    def get(self, module):
        return self._frames.get(id(module))

    def put(self, module, frames):
        # A clone, so that a chunk's full activations are not kept alive by a two-frame view of them.
        self._frames[id(module)] = frames.clone()


def causal_conv(conv, x, state=None):
    """Apply a ``CausalConv3d`` with the context of earlier chunks, or zeros at the start of the clip.

    Args:
        conv: a ``CausalConv3d``; x: (B, C, T, H, W); state: the clip's :class:`ClipState`, or None.

    Returns:
        (B, C', T, H', W').
    """
    context = conv.weight.shape[2] - 1
    if context == 0:
        return conv(x)
    past = state.get(conv) if state is not None else None
    if past is None and state is None and x.shape[2] == 1:
        # A still meets the last temporal tap alone; the other taps would multiply zeros.
        return F.conv2d(
            x[:, :, 0], conv.weight[:, :, -1], conv.bias, padding=conv._padding[2:3] + conv._padding[:1]
        ).unsqueeze(2)
    if state is not None:
        seen = x if past is None else torch.cat([past, x], dim=2)
        state.put(conv, seen[:, :, -context:])
    return conv(x, past)


def _frames_as_batch(function, x):
    batch, frames = x.shape[0], x.shape[2]
    y = function(x.transpose(1, 2).flatten(0, 1))
    return y.unflatten(0, (batch, frames)).transpose(1, 2)


def _rms_norm(norm, x):
    # F.normalize as diffsynth calls it: its strided vector norm costs more than the multiplication by its inverse.
    inverse = x.square().sum(dim=1, keepdim=True).clamp(min=1e-24).rsqrt()
    return x * inverse * (norm.scale * norm.gamma) + norm.bias


def _residual(block, x, state):
    return run_blocks(block.residual, x, state) + block.shortcut(x)


def _double_frames(x):
    """The two halves of the time convolution's channels are the two frames that each input frame becomes."""
    return x.unflatten(1, (2, -1)).permute(0, 2, 3, 1, 4, 5).flatten(2, 3)


def _upsample(block, x, state):
    if block.mode == "upsample3d":
        starts_clip = state is None or state.get(block) is None
        if state is not None:
            state.put(block, x[:, :, :0])  # an empty marker: the clip's first frame has passed
        first, rest = (x[:, :, :1], x[:, :, 1:]) if starts_clip else (x[:, :, :0], x)
        if rest.shape[2]:
            rest = _double_frames(_time_conv(block.time_conv, rest, state))
        x = torch.cat([first, rest], dim=2) if first.shape[2] else rest
    return _frames_as_batch(block.resample, x)


def _time_conv(conv, x, state):
    # The plain causal convolution, never the still's shortcut: one frame after the first has a zero context too.
    past = state.get(conv) if state is not None else None
    if state is not None:
        seen = torch.cat([torch.zeros_like(x[:, :, :1]).expand(-1, -1, 2, -1, -1) if past is None else past, x], dim=2)
        state.put(conv, seen[:, :, -2:])
    return conv(x, past)


def _downsample(block, x, state):
    x = _frames_as_batch(block.resample, x)
    if block.mode != "downsample3d":
        return x
    last = state.get(block) if state is not None else None
    if state is not None:
        state.put(block, x[:, :, -1:])
    if last is not None:
        return block.time_conv(torch.cat([last, x], dim=2))
    if x.shape[2] == 1:
        return x
    return torch.cat([x[:, :, :1], block.time_conv(x)], dim=2)


def _down_level(level, x, state):
    # The zero frame before the clip comes by itself: only a clip's start has an odd number of frames.
    return run_blocks(level.downsamples, x, state) + level.avg_shortcut(x)


def _up_level(level, x, state):
    y = run_blocks(level.upsamples, x, state)
    if level.avg_shortcut is None:
        return y
    starts_clip = state is None or state.get(level) is None
    if state is not None:
        state.put(level, x[:, :, :0])  # an empty marker: the clip's first frame has passed
    return y + level.avg_shortcut(x, first_chunk=starts_clip)


def run_block(block, x, state=None):
    """Run one encoder, decoder or merge block over (B, C, T, H, W)."""
    if isinstance(block, ResidualBlock):
        return _residual(block, x, state)
    if isinstance(block, AttentionBlock):
        return block(x)
    if isinstance(block, Resample):
        return _upsample(block, x, state) if block.mode.startswith("upsample") else _downsample(block, x, state)
    if isinstance(block, Down_ResidualBlock):
        return _down_level(block, x, state)
    if isinstance(block, Up_ResidualBlock):
        return _up_level(block, x, state)
    if isinstance(block, CausalConv3d):
        return causal_conv(block, x, state)
    if isinstance(block, RMS_norm):
        return _rms_norm(block, x)
    return block(x)


def run_blocks(blocks, x, state=None):
    """Run blocks in order; norms, activations and dropout are applied as they are."""
    for block in blocks:
        x = run_block(block, x, state)
    return x


def pixels_per_place(channels):
    """Side of the square of pixels that a VAE's first and last convolution see as one place: 1 of 3 channels (Wan2.1),
    2 of 12 (Wan2.2)."""
    return math.isqrt(channels // RGB_CHANNELS)


def encoder_features(encoder, video, state=None):
    """Features of the Wan encoder before its head.

    Args:
        encoder: diffsynth's ``Encoder3d`` or ``Encoder3d_38``.
        video: (B, 3, T, H, W) in [-1, 1]. Without a state, or for its first chunk, T = 4n+1; afterwards T = 4n.

    Returns:
        (B, 4*width, n+1, H/s, W/s) (n latent frames for later chunks), with s = 8 for Wan2.1, 16 for Wan2.2.
    """
    x = causal_conv(encoder.conv1, patchify(video, pixels_per_place(encoder.conv1.weight.shape[1])), state)
    return run_blocks(encoder.middle, run_blocks(encoder.downsamples, x, state), state)


def decoder_frames(decoder, z, state=None):
    """Frames of the Wan decoder, unclamped.

    Args:
        decoder: diffsynth's ``Decoder3d`` or ``Decoder3d_38``.
        z: (B, C, n, h, w), latents after the VAE's ``conv2``: C = 16 for Wan2.1, 48 for Wan2.2.

    Returns:
        (B, 3, 4n-3, s*h, s*w) for the start of a clip, (B, 3, 4n, s*h, s*w) for later chunks; s = 8 or 16.
    """
    x = causal_conv(decoder.conv1, z, state)
    x = run_blocks(decoder.upsamples, run_blocks(decoder.middle, x, state), state)
    return frames_of_places(run_blocks(decoder.head, x, state))


def decoder_parts(decoder):
    """(name, module) of the parts that :func:`decoder_frames` runs one after the other, each for :func:`run_part`."""
    yield "conv1", decoder.conv1
    for group in ("middle", "upsamples"):
        for number, block in enumerate(getattr(decoder, group)):
            yield f"{group}.{number}", block
    yield "head", decoder.head


def run_part(part, x):
    """Run one of :func:`decoder_parts` over a whole clip."""
    return run_blocks(part if isinstance(part, nn.Sequential) else [part], x)


def frames_of_places(x):
    """What the decoder's head makes as frames: (B, 3 or 12, T, H, W) to (B, 3, T, p*H, p*W)."""
    return unpatchify(x, pixels_per_place(x.shape[1]))


def video_chunks(video, chunk_size):
    """Split (B, C, 4n+1, H, W) into pieces that each make ``chunk_size`` latent frames (the last may make fewer).

    ``chunk_size`` None leaves the clip whole.
    """
    if chunk_size is None:
        yield video
        return
    first = 1 + TEMPORAL_STRIDE * (chunk_size - 1)
    yield video[:, :, :first]
    yield from video[:, :, first:].split(TEMPORAL_STRIDE * chunk_size, dim=2) if video.shape[2] > first else ()


def encoder_features_chunked(encoder, video, chunk_size):
    """:func:`encoder_features` in chunks of ``chunk_size`` latent frames: the same numbers, bounded memory.

    ``chunk_size`` None takes the whole clip at once.
    """
    state = ClipState()
    return torch.cat([encoder_features(encoder, chunk, state) for chunk in video_chunks(video, chunk_size)], dim=2)
