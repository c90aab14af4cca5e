"""The over operator, the two renders of an RGBA clip, and the backgrounds they are made on."""

from collections.abc import Sequence

import torch
from torch import Tensor

from wan_alpha.errors import ConfigError

BACKGROUND_COLOR_NAMES = ("black", "blue", "green", "cyan", "red", "magenta", "yellow", "white")
BACKGROUND_COLORS = torch.tensor(
    [[-1, -1, -1], [-1, -1, 1], [-1, 1, -1], [-1, 1, 1], [1, -1, -1], [1, -1, 1], [1, 1, -1], [1, 1, 1]],
    dtype=torch.float32,
)
"""The eight training backgrounds, (8, 3), RGB in [-1, 1]; row i is called BACKGROUND_COLOR_NAMES[i]."""

Background = Sequence[float] | Tensor


def background_color(name: str) -> tuple[float, float, float]:
    """RGB in [-1, 1] of one of the eight training backgrounds or of mid "grey".

    Raises:
        ConfigError: no background has this name.
    """
    if name == "grey":
        return (0.0, 0.0, 0.0)
    if name not in BACKGROUND_COLOR_NAMES:
        raise ConfigError(f"background {name!r} is unknown: choose one of {', '.join(BACKGROUND_COLOR_NAMES)} or grey")
    red, green, blue = BACKGROUND_COLORS[BACKGROUND_COLOR_NAMES.index(name)].tolist()
    return (red, green, blue)


def as_background(background: Background, like: Tensor) -> Tensor:
    """Bring any accepted background to five dimensions, on the device and in the dtype of `like`.

    Args:
        background: three floats, a (3,) tensor, a (B, 3) tensor with one colour per sample, or a 5-D tensor
            that already broadcasts to `like`.
        like: the clip to be composited, (B, 3, T, H, W).

    Raises:
        ConfigError: the background does not broadcast to `like`.
    """
    color = torch.as_tensor(background, dtype=like.dtype, device=like.device)
    if color.shape == (3,):
        color = color.view(1, 3, 1, 1, 1)
    elif color.ndim == 2 and color.shape[1] == 3:
        color = color.view(-1, 3, 1, 1, 1)
    fits = color.ndim == 5 and all(own in (1, wanted) for own, wanted in zip(color.shape, like.shape, strict=True))
    if not fits:
        raise ConfigError(
            f"background of shape {tuple(color.shape)} does not fit a clip of shape {tuple(like.shape)}: "
            "give three floats, (B, 3) colours or a 5-D tensor that broadcasts"
        )
    return color


def over(rgb: Tensor, alpha: Tensor, background: Background) -> Tensor:
    """Composite a straight-alpha foreground over an opaque background.

        C = a*F + (1 - a)*B        (Porter & Duff 1984, over; Wan-Alpha's soft render)

    Args:
        rgb: straight foreground F, (B, 3, T, H, W), [-1, 1] or [0, 1].
        alpha: coverage a, (B, 1, T, H, W) or, channel by channel, (B, 3, T, H, W), [0, 1].
        background: opaque colour B in rgb's range, as in `as_background`.

    Returns:
        The composite, (B, 3, T, H, W), in rgb's range.

    Raises:
        ConfigError: the shapes do not fit each other.
    """
    fits = rgb.ndim == 5 and alpha.ndim == 5 and rgb.shape[1] == 3 and alpha.shape[1] in (1, 3)
    if not fits or rgb.shape[0] != alpha.shape[0] or rgb.shape[2:] != alpha.shape[2:]:
        raise ConfigError(
            f"rgb {tuple(rgb.shape)} and alpha {tuple(alpha.shape)} do not belong together: "
            "expected (B, 3, T, H, W) and (B, 1, T, H, W) with the same B, T, H, W"
        )
    return rgb * alpha + as_background(background, rgb) * (1 - alpha)


def soft_render(rgb: Tensor, alpha: Tensor, background: Background) -> Tensor:
    """R_s = V*a + c*(1 - a), Wan-Alpha's name for `over`: same arguments, result and errors."""
    return over(rgb, alpha, background)


def hard_render(rgb: Tensor, alpha: Tensor, background: Background, threshold: float = 0.0) -> Tensor:
    """Composite with every pixel either kept whole or replaced by the background.

        R_h = V*1[a > threshold] + c*(1 - 1[a > threshold])        (Wan-Alpha's hard render)

    Args:
        rgb, alpha, background: as in `over`.
        threshold: largest alpha, [0, 1], that still counts as clear. The release uses 0; mattes that went
            through a lossy codec carry noise of a few 1/255 and need a little more.

    Returns:
        The render, (B, 3, T, H, W), in rgb's range. No gradient flows to alpha.

    Raises:
        ConfigError: the shapes do not fit each other.
    """
    return over(rgb, (alpha > threshold).to(rgb.dtype), background)


def checkerboard(height: int, width: int, square: int = 16, light: float = 0.6, dark: float = 0.2) -> Tensor:
    """The chequered board that stands for transparency in previews.

    Args:
        height, width, square: sizes in pixels; the top left square is light.
        light, dark: the two greys, [-1, 1].

    Returns:
        (3, H, W), [-1, 1].
    """
    rows = torch.arange(height) // square
    columns = torch.arange(width) // square
    is_dark = (rows[:, None] + columns[None, :]) % 2 == 1
    return torch.where(is_dark, dark, light).expand(3, height, width).contiguous()
