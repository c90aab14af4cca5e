"""The Wan VAE over a whole clip in one pass, or in chunks that remember what came before.

diffsynth runs the Wan VAE frame group by frame group and carries a list of cached features from group to group. The
same numbers come from one pass over the clip, because every module that looks along time is causal:

* a causal convolution sees two zero frames before the clip;
* ``upsample3d`` doubles every latent frame but the first, and the first is not part of the others' context;
* ``downsample3d`` keeps the first frame and convolves the clip with stride 2 and no padding.

A :class:`ClipState` carries those contexts from chunk to chunk; without one, a call is a whole clip. These functions
walk diffsynth's own modules (``Encoder3d``, ``Decoder3d`` and their blocks) and hold no weights.
"""

import torch
import torch.nn.functional as F
from diffsynth.models.wan_video_vae import AttentionBlock, CausalConv3d, Resample, ResidualBlock, RMS_norm

TEMPORAL_STRIDE = 4
SPATIAL_STRIDE = 8


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


def run_block(block, x, state=None):
    """Run one encoder, decoder or merge block over (B, C, T, H, W)."""
    if isinstance(block, ResidualBlock):
        return _residual(block, x, state)
    if isinstance(block, AttentionBlock):
        return block(x)
    if isinstance(block, Resample):
        return _upsample(block, x, state) if block.mode.startswith("upsample") else _downsample(block, x, state)
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


def encoder_features(encoder, video, state=None):
    """Features of the Wan encoder before its head.

    Args:
        encoder: diffsynth's ``Encoder3d``.
        video: (B, 3, T, H, W) in [-1, 1]. Without a state, or for its first chunk, T = 4n+1; afterwards T = 4n.

    Returns:
        (B, 4*width, n+1, H/8, W/8) (n latent frames for later chunks).
    """
    x = causal_conv(encoder.conv1, video, state)
    return run_blocks(encoder.middle, run_blocks(encoder.downsamples, x, state), state)


def decoder_frames(decoder, z, state=None):
    """Frames of the Wan decoder, unclamped.

    Args:
        decoder: diffsynth's ``Decoder3d``.
        z: (B, 16, n, h, w), latents after the VAE's ``conv2``.

    Returns:
        (B, 3, 4n-3, 8h, 8w) for the start of a clip, (B, 3, 4n, 8h, 8w) for later chunks.
    """
    x = causal_conv(decoder.conv1, z, state)
    x = run_blocks(decoder.upsamples, run_blocks(decoder.middle, x, state), state)
    return run_blocks(decoder.head, x, state)


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
