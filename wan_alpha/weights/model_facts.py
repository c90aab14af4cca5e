"""What decides which options go with a model, from its files' headers: ``weights.combinations`` asks for it."""

from wan_alpha.weights.part_reader import find_part_in
from wan_alpha.weights.recognise.wan_parts import dit_sizes
from wan_alpha.weights.wan_layout import DITS, find_wan_files, model_of_id, part_files


def model_facts(source, base_vae=None, local_only=False):
    """Facts of a Wan model and of the VAE beside it; no weight is read. Of a known model's id they are the registry's,
    and nothing is downloaded for them.

    Args:
        source: as in ``find_wan_files``; base_vae: file or folder of a VAE, or None.
        local_only: download nothing for ``model_id:pattern`` either.

    Returns:
        num_experts (1 or 2), latent_channels and takes_image of the DiT, where there is one; base_vae_channels.

    Raises:
        CheckpointError: files that cannot be read, or that hold something else.
    """
    known = model_of_id(source)
    if known is not None and (local_only or known.hub == str(source)):
        facts = dict(known.facts)
    else:
        facts = _facts_of_files(find_wan_files(source, parts=DITS, local_only=local_only))
    if base_vae is not None:
        tensors = find_part_in(part_files(base_vae, "vae"), "vae").tensors
        facts["base_vae_channels"] = tensors["conv2.weight"].shape[0]
    return facts


def _facts_of_files(files):
    if not files.dit:
        return {}
    sizes = dit_sizes(find_part_in(files.dit, "dit").tensors)
    return {
        "num_experts": 2 if files.dit_low_noise else 1,
        "latent_channels": sizes["out_dim"],
        "takes_image": sizes["in_dim"] != sizes["out_dim"],
    }


def text_encoder_width(source):
    """Numbers a token of a model's text encoder, or None where the source has none.

    Raises:
        CheckpointError: as :func:`model_facts`.
    """
    files = find_wan_files(source, parts=("text_encoder",)).text_encoder
    return find_part_in(files, "text_encoder").tensors["token_embedding.weight"].shape[1] if files else None
