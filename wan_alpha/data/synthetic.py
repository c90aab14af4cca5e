"""Synthetic RGBA clips: captioned shapes with soft edges, semi-transparency and motion.

They are drawn from signed distance fields, so that their alpha is exact at any size, and each caption names what is
seen. The tiny model family is pretrained on them, the demo and the tests use them.
"""

import math
from dataclasses import dataclass

import torch

COLORS = {
    "red": (0.86, 0.16, 0.14), "orange": (0.95, 0.55, 0.12), "yellow": (0.95, 0.87, 0.20), "green": (0.18, 0.66, 0.26),
    "blue": (0.16, 0.32, 0.84), "purple": (0.56, 0.22, 0.72), "pink": (0.95, 0.56, 0.74), "white": (0.94, 0.94, 0.94),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "star", "ring")
SIZES = {"small": 0.38, "large": 0.54}
OPACITIES = {"solid": 1.0, "translucent": 0.55}
MOTIONS = ("moving left", "moving right", "moving up", "moving down", "growing", "spinning")


@dataclass(frozen=True)
class ShapeClip:
    """What a synthetic clip shows; the caption is made of nothing else."""

    shape: str
    color: str
    size: str
    opacity: str
    motion: str

    @property
    def caption(self):
        return (
            f"The background is transparent. Flat illustration, medium shot. "
            f"A {self.size} {self.opacity} {self.color} {self.shape}, {self.motion}."
        )


def random_shape_clip(generator):
    """Draw one combination of attributes, each uniform and independent."""

    def pick(options):
        options = tuple(options)
        return options[int(torch.randint(len(options), (), generator=generator))]

    return ShapeClip(pick(SHAPES), pick(COLORS), pick(SIZES), pick(OPACITIES), pick(MOTIONS))


def _signed_distance(shape, x, y, radius):
    """Distance to the outline in units of the frame's half side, negative inside. x, y: centred coordinates."""
    if shape == "circle":
        return torch.hypot(x, y) - radius
    if shape == "ring":
        return (torch.hypot(x, y) - 0.78 * radius).abs() - 0.24 * radius
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - 0.84 * radius
    if shape == "triangle":
        edges = [math.sin(a) * x - math.cos(a) * y for a in (math.pi, math.pi / 3, -math.pi / 3)]
        return torch.stack(edges).amax(0) - 0.56 * radius
    angle = torch.remainder(torch.atan2(x, -y), 2 * math.pi / 5) - math.pi / 5
    spike = torch.hypot(x, y) * torch.cos(angle.abs() - math.pi / 5 + math.pi / 10 * 3)
    return 0.9 * (spike - 0.52 * radius)


def draw_shape_clip(clip, num_frames, height, width, generator):
    """Draw a clip; position, speed, angle and edge softness are random within what the caption allows.

    Args:
        clip: a :class:`ShapeClip`; generator: the source of all randomness.

    Returns:
        rgb, straight (3, T, H, W) in [-1, 1], defined under zero alpha too, and alpha (1, T, H, W) in [0, 1].
    """

    def uniform(low, high):
        return low + (high - low) * float(torch.rand((), generator=generator))

    aspect = width / height
    y, x = torch.meshgrid(
        (torch.arange(height) + 0.5) * 2 / height - 1,
        ((torch.arange(width) + 0.5) * 2 / width - 1) * aspect,
        indexing="ij",
    )
    time = torch.linspace(-1, 1, num_frames) if num_frames > 1 else torch.zeros(1)
    radius = SIZES[clip.size] * uniform(0.93, 1.06)
    travel = uniform(0.15, 0.26)
    dx = {"moving left": -travel, "moving right": travel}.get(clip.motion, 0.0)
    dy = {"moving up": -travel, "moving down": travel}.get(clip.motion, 0.0)
    start_x, start_y, angle = uniform(-0.08, 0.08), uniform(-0.08, 0.08), uniform(-0.25, 0.25)
    turn = uniform(0.35, 0.6) if clip.motion == "spinning" else 0.0
    growth = uniform(0.25, 0.40) if clip.motion == "growing" else 0.0
    softness = uniform(0.08, 0.18)

    mattes = []
    for t in time.tolist():
        u, v = x - start_x - dx * t, y - start_y - dy * t
        cos, sin = math.cos(angle + turn * t), math.sin(angle + turn * t)
        distance = _signed_distance(clip.shape, cos * u + sin * v, cos * v - sin * u, radius * (1 + growth * t))
        ramp = (0.5 - distance / softness).clamp(0, 1)
        mattes.append(ramp * ramp * (3 - 2 * ramp))
    alpha = OPACITIES[clip.opacity] * torch.stack(mattes)[None]

    base = torch.tensor(COLORS[clip.color]).view(3, 1, 1, 1) * uniform(0.92, 1.05)
    light = 1 - 0.18 * (y + 0.5 * x).view(1, 1, height, width)
    rgb = (base * light).clamp(0, 1).expand(3, num_frames, height, width) * 2 - 1
    return rgb.clone(), alpha
