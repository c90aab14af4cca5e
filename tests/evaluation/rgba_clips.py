"""A synthetic clip as a lossless pair of files."""

import torch

from wan_alpha.data.synthetic import ShapeClip, draw_shape_clip
from wan_alpha.media.write import LosslessWriter


def write_clip(folder, num_frames, size, name="001"):
    """Write ``NAME_rgb.mkv`` and ``NAME_alpha.mkv``; returns the two paths."""
    clip = ShapeClip("star", "orange", "large", "solid", "moving up")
    rgb, alpha = draw_shape_clip(clip, num_frames, size, size, torch.Generator().manual_seed(0))
    frames = (torch.cat([(rgb + 1) / 2, alpha]).permute(1, 2, 3, 0) * 255).round().byte().numpy()
    paths = folder / f"{name}_rgb.mkv", folder / f"{name}_alpha.mkv"
    for path, stream in zip(paths, ("rgb", "matte"), strict=True):
        with LosslessWriter(path, 16, stream) as writer:
            writer.write(frames)
    return paths
