"""Drawn RGBA clips whose faults are known."""

import torch


def disc(height=64, width=80, radius=20.0, softness=4.0, center=(32.0, 40.0)):
    """A soft disc's alpha, (H, W): `softness` pixels from clear to opaque."""
    rows, columns = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    distance = ((rows - center[0]) ** 2 + (columns - center[1]) ** 2).sqrt()
    return ((radius - distance) / softness + 0.5).clamp(0, 1)


def clip_of(*mattes):
    """Frames (H, W) as one clip (1, 1, T, H, W)."""
    return torch.stack(mattes)[None, None]


def painted(alpha, color=(0.8, 0.4, 0.2)):
    """One colour everywhere, also where it is hidden: (1, 3, T, H, W)."""
    return torch.tensor(color).view(1, 3, 1, 1, 1).expand(1, 3, *alpha.shape[2:]).clone()
