"""The base Wan VAE from a file, its sizes read from the weights."""

import torch
from diffsynth.models.wan_video_vae import VideoVAE_

from wan_alpha.errors import CheckpointError
from wan_alpha.weights.io import load_state_dict

# Statistics of the Wan2.1 VAE's latents, as diffsynth's WanVideoVAE holds them (a contract test compares).
LATENT_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
LATENT_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip


def load_base_vae(path):
    """Load a Wan2.1-type VAE of any width, in float32.

    Args:
        path: ``Wan2.1_VAE.pth`` or a safetensors file in its naming (a ``model.`` prefix is accepted).

    Returns:
        diffsynth's ``VideoVAE_``.

    Raises:
        CheckpointError: the file is no such VAE: another naming, the 48-channel Wan2.2 VAE, an image VAE, or keys
            missing.
    """
    state = {name.removeprefix("model."): value for name, value in load_state_dict(path).items()}
    stem, project = state.get("encoder.conv1.weight"), state.get("conv2.weight")
    if stem is None or project is None:
        found = ", ".join(list(state)[:2])
        raise CheckpointError(
            f"{path}: expected a Wan2.1 VAE (encoder.conv1.weight, conv2.weight, ...), found {found}, ...; "
            f"the usual file is Wan2.1_VAE.pth"
        )
    if stem.dim() != 5:
        raise CheckpointError(f"{path}: an image VAE ({stem.dim()}-D convolutions); expected the Wan2.1 video VAE")
    if stem.shape[1] != 3 or project.shape[0] != len(LATENT_MEAN):
        raise CheckpointError(
            f"{path}: {stem.shape[1]} input and {project.shape[0]} latent channels; expected the Wan2.1 VAE's 3 and 16"
        )
    with torch.device("meta"):
        vae = VideoVAE_(dim=stem.shape[0], z_dim=project.shape[0])
    try:
        vae.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split()[:40])
        raise CheckpointError(f"{path}: does not fit a Wan2.1 VAE of width {stem.shape[0]}: {reason}") from error
    return vae.eval().requires_grad_(False)
