"""The base Wan VAE from a file: which of the two it is, and its sizes, are read from the weights."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffsynth.models.wan_video_vae import VideoVAE38_, VideoVAE_

from wan_alpha.errors import CheckpointError, ConfigError
from wan_alpha.models.fill import fill_module
from wan_alpha.weights.latent_statistics import WAN21_MEAN, WAN21_STD, WAN22_MEAN, WAN22_STD
from wan_alpha.weights.part_reader import find_part_in
from wan_alpha.weights.wan_layout import part_files


@dataclass(frozen=True)
class VAEKind:
    """What distinguishes the Wan VAEs; widths are the weights' own.

    Attributes:
        name: as people know it; file: the usual file name.
        input_channels: of the first convolution: 3, or 12 where 2x2 pixels are one place.
        latent_channels: of a latent; spatial_stride: pixels a latent cell, each way.
        latent_mean, latent_std: the latents' statistics, as diffsynth holds them (a contract test compares).
        build: (width of encoder, width of decoder) -> diffsynth's module.
    """

    name: str
    file: str
    input_channels: int
    latent_channels: int
    spatial_stride: int
    latent_mean: tuple[float, ...]
    latent_std: tuple[float, ...]
    build: Callable


WAN21_VAE = VAEKind(
    name="Wan2.1 VAE",
    file="Wan2.1_VAE.pth",
    input_channels=3,
    latent_channels=16,
    spatial_stride=8,
    latent_mean=WAN21_MEAN,
    latent_std=WAN21_STD,
    build=lambda width, _: VideoVAE_(dim=width, z_dim=16),
)  # fmt: skip

WAN22_VAE = VAEKind(
    name="Wan2.2 VAE",
    file="Wan2.2_VAE.pth",
    input_channels=12,
    latent_channels=48,
    spatial_stride=16,
    latent_mean=WAN22_MEAN,
    latent_std=WAN22_STD,
    build=lambda width, decoder_width: VideoVAE38_(dim=width, z_dim=48, dec_dim=decoder_width),
)  # fmt: skip

VAE_KINDS = (WAN21_VAE, WAN22_VAE)
DIT_PATCH = 2  # latent cells that one token of the DiT spans, each way
_DECODER_WIDTH_FACTOR = 4  # its first convolution has this many times the decoder's width


def kind_of_vae(vae):
    """The :class:`VAEKind` of a ``VideoVAE_`` or ``VideoVAE38_``."""
    return vae_kind_of_latents(vae.z_dim)


def vae_kind_of_latents(channels):
    """The :class:`VAEKind` whose latents have this many channels."""
    return next(kind for kind in VAE_KINDS if kind.latent_channels == channels)


def vae_kind_of_file(path):
    """The :class:`VAEKind` that a file or the folder of a model holds, from the shapes of its weights alone.

    Raises:
        CheckpointError: no Wan VAE there.
    """
    paths = part_files(path, "vae")
    return _kind_of_shapes(_shapes(find_part_in(paths, "vae")), paths[0])


def empty_vae(shapes, path):
    """The :class:`VAEKind` of shapes under Wan's names, and diffsynth's module of their widths on the meta device.

    Raises:
        CheckpointError: shapes of no Wan VAE.
    """
    kind = _kind_of_shapes(shapes, path)
    with torch.device("meta"):
        return kind, kind.build(shapes["encoder.conv1.weight"][0], _decoder_width(shapes))


def _decoder_width(shapes):
    return shapes["decoder.conv1.weight"][0] // _DECODER_WIDTH_FACTOR


def _shapes(part):
    return {name: info.shape for name, info in part.tensors.items()}


def _kind_of_shapes(shapes, path):
    stem, project = shapes["encoder.conv1.weight"], shapes["conv2.weight"]
    for kind in VAE_KINDS:
        if (stem[1], project[0]) == (kind.input_channels, kind.latent_channels):
            return kind
    known = "; ".join(f"the {kind.name} has {kind.input_channels} and {kind.latent_channels}" for kind in VAE_KINDS)
    raise CheckpointError(f"{path}: {stem[1]} input and {project[0]} latent channels; {known}")


def check_token_grid(kind, sizes):
    """Refuse frames whose latents the DiT cannot cut into its patches of 2x2 cells.

    Args:
        kind: a :class:`VAEKind`; sizes: option name -> pixels.

    Raises:
        ConfigError: a size that is no multiple of twice the VAE's stride.
    """
    step = DIT_PATCH * kind.spatial_stride
    for name, size in sizes.items():
        if size % step:
            nearest = max(round(size / step), 1) * step
            raise ConfigError(f"{name} = {size}: with the {kind.name} sizes are multiples of {step}; try {nearest}")


def load_base_vae(path):
    """Load a Wan VAE of either kind and any width, in float32.

    Args:
        path: ``Wan2.1_VAE.pth``, ``Wan2.2_VAE.pth``, a file in diffusers' or ComfyUI's naming, or a model's folder.

    Returns:
        diffsynth's ``VideoVAE_`` or ``VideoVAE38_``.

    Raises:
        CheckpointError: no such VAE: an image VAE, another model, or tensors missing or of other shapes.
    """
    paths = part_files(path, "vae")
    part = find_part_in(paths, "vae")
    _, vae = empty_vae(_shapes(part), paths[0])
    return fill_module(vae, paths, part, "cpu", torch.float32)


def shape_base_vae(path):
    """A VAE of the sizes in a file or folder, on the meta device, in float32; no weight is read.

    Raises:
        CheckpointError: no such VAE.
    """
    paths = part_files(path, "vae")
    _, vae = empty_vae(_shapes(find_part_in(paths, "vae")), paths[0])
    return vae.eval().requires_grad_(False)


def shape_known_vae(sizes):
    """As :func:`shape_base_vae`, with the sizes of a registry entry (``KnownModel.vae``)."""
    kind = vae_kind_of_latents(sizes["latent_channels"])
    with torch.device("meta"):
        return kind.build(sizes["width"], sizes["decoder_width"]).eval().requires_grad_(False)
