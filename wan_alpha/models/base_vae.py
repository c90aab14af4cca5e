"""The base Wan VAE from a file: which of the two it is, and its sizes, are read from the weights."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffsynth.models.wan_video_vae import VideoVAE38_, VideoVAE_

from wan_alpha.errors import CheckpointError, ConfigError
from wan_alpha.models.fill import fill_module
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
    latent_mean=(
        -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
        0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
    ),
    latent_std=(
        2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
        3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
    ),
    build=lambda width, _: VideoVAE_(dim=width, z_dim=16),
)  # fmt: skip

WAN22_VAE = VAEKind(
    name="Wan2.2 VAE",
    file="Wan2.2_VAE.pth",
    input_channels=12,
    latent_channels=48,
    spatial_stride=16,
    latent_mean=(
        -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557,
        -0.1382, 0.0542, 0.2813, 0.0891, 0.1570, -0.0098, 0.0375, -0.1825,
        -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
        -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230,
        -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748,
        0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
    ),
    latent_std=(
        0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013,
        0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978,
        0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
        0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093,
        0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887,
        0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
    ),
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
