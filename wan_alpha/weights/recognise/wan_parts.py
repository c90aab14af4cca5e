"""The parts of a Wan model, described: family, size, and what keeps one from being loaded."""

import re

from wan_alpha.weights.recognise.component import KINDS, Component, counted
from wan_alpha.weights.registry import families_of

VAES = {16: ("Wan2.1 VAE", "Wan2.1_VAE.pth"), 48: ("Wan2.2 VAE", "Wan2.2_VAE.pth")}
_UMT5_VOCABULARY = 256384
_SMALLEST_KNOWN_WIDTH = 1536
# Sizes of a text encoder -> the tensor whose rows they are.
_TEXT_WIDTHS = {"attn_dim": "blocks.0.attn.q.weight", "ffn_dim": "blocks.0.ffn.fc1.weight"}
# Tensors that only these relatives of Wan have -> their name.
_RELATIVES = {
    "vace_blocks.0.before_proj.weight": "Wan VACE (editing by reference videos)",
    "control_adapter.conv.weight": "Wan Fun, camera control",
    "face_adapter.fuser_blocks.0.k_norm.weight": "Wan Animate",
    "pose_patch_embedding.weight": "Wan Animate",
    "casual_audio_encoder.weights": "Wan S2V (speech to video)",
    "audio_injector.injector.0.q.weight": "Wan S2V (speech to video)",
    "ref_conv.weight": "Wan Fun, control by a reference image",
    "motion_encoder.enc.net_app.convs.0.0.weight": "Wan Animate",
}


def describe_part(part, paths):
    """A Component of a ``parts.Part``."""
    describe = {"dit": _dit, "text_encoder": _text_encoder, "vae": _vae, "image_encoder": _image_encoder}[part.kind]
    facts = describe(part, paths)
    details = facts.pop("details", {})
    if part.scales:
        details["quantised"] = f"8 bit with {len(part.scales)} scales; made whole when loaded"
    return Component(
        part.kind, paths=tuple(paths), naming=part.naming, details=details, **counted(part.tensors.values()), **facts
    )


def dit_sizes(tensors):
    """dim, ffn_dim, num_layers and so on of a Wan DiT's tensors, under Wan's names; None where they do not tell."""

    def shape(name):
        return tensors[name].shape if name in tensors else (None,) * 5

    dim, in_dim, *patch = shape("patch_embedding.weight")
    rows = shape("head.head.weight")[0]
    cells = patch[0] * patch[1] * patch[2] if len(patch) == 3 and None not in patch else 0
    return {
        "dim": dim,
        "ffn_dim": shape("blocks.0.ffn.0.weight")[0],
        "num_layers": count_blocks(tensors),
        "in_dim": in_dim,
        "out_dim": rows // cells if rows and cells else None,
        "image_input": "img_emb.proj.0.weight" in tensors or "img_emb.proj.1.weight" in tensors,
        "text_dim": shape("text_embedding.0.weight")[1],
        "freq_dim": shape("time_embedding.0.weight")[1],
    }


def count_blocks(names):
    """One more than the largest N of ``blocks.N.``."""
    numbers = [int(match[1]) for match in (re.match(r"blocks\.(\d{1,6})\.", name) for name in names) if match]
    return max(numbers, default=-1) + 1


def relative_of_wan(tensors):
    """What a DiT with more than Wan's own tensors is, or None."""
    return next((name for key, name in _RELATIVES.items() if key in tensors), None)


def expert_of(paths):
    """Which expert a file's or folder's name says that it holds: "high", "low" or None."""
    for path in paths:
        for name in (path.name.lower(), path.parent.name.lower()):
            if re.search(r"high[_-]?noise", name):
                return "high"
            if re.search(r"low[_-]?noise", name) or name == "transformer_2":
                return "low"
    return None


def _dit(part, paths):
    sizes = dit_sizes(part.tensors)
    relative = relative_of_wan(part.tensors)
    expert = expert_of(paths)
    families = [] if relative else families_of(sizes, 2 if expert else None)
    problems = []
    if relative:
        title = relative
        problems.append(f"{title} has layers that this toolkit does not run; take a text-to-video Wan")
    elif families:
        title = " or an expert of ".join(families) + (f", {expert}-noise expert" if expert else "")
    elif (sizes["dim"] or 0) < _SMALLEST_KNOWN_WIDTH:
        families, title = ["tiny"], "a tiny Wan"
    else:
        title = f"a Wan DiT of no known size (width {sizes['dim']}, {sizes['num_layers']} blocks)"
    return {"title": title, "families": tuple(families), "sizes": sizes, "problems": tuple(problems)}


def _text_encoder(part, paths):
    vocabulary, dim = (
        part.tensors["token_embedding.weight"].shape if "token_embedding.weight" in part.tensors else (0, 0)
    )
    is_umt5 = (vocabulary, dim) == (_UMT5_VOCABULARY, 4096)
    layers = count_blocks(part.tensors)
    title = "UMT5-XXL encoder" if is_umt5 else f"UMT5 encoder of width {dim}, {layers} blocks"
    sizes = {"vocabulary": vocabulary, "dim": dim, "num_layers": layers}
    position = _shape(part, "blocks.0.pos_embedding.embedding.weight") or (None, None)
    sizes |= {"num_buckets": position[0], "num_heads": position[1]}
    sizes |= {name: (_shape(part, key) or (None,))[0] for name, key in _TEXT_WIDTHS.items()}
    return {"title": title, "sizes": sizes}


def _vae(part, paths):
    channels, width = part.tensors["conv2.weight"].shape[0], part.tensors["encoder.conv1.weight"].shape[0]
    name, _ = VAES.get(channels, (f"a Wan VAE of {channels} channels", ""))
    problems = () if channels in VAES else (f"expected 16 or 48 latent channels, found {channels}",)
    stride, decoder = {16: 8, 48: 16}.get(channels), _shape(part, "decoder.conv1.weight")
    return {
        "title": f"{name} ({channels} channels, width {width})",
        "sizes": {
            "latent_channels": channels,
            "width": width,
            "decoder_width": decoder[0] // 4,
            "spatial_stride": stride,
        },
        "problems": problems,
    }


def _image_encoder(part, paths):
    def shape(ending):
        return next((info.shape for name, info in part.tensors.items() if name.endswith(ending)), None)

    patch, position, inner = (
        shape(name) for name in ("patch_embedding.weight", "visual.pos_embedding", "transformer.0.mlp.0.weight")
    )
    names = [name.partition("visual.transformer.")[2].split(".")[0] for name in part.tensors]
    sizes = {"dim": patch[0], "patch": patch[-1], "num_layers": len({name for name in names if name.isdigit()})}
    sizes |= {"num_places": position[-2] if position else None, "ffn_dim": inner[0] if inner else None}
    return {"title": f"{KINDS['image_encoder']} (CLIP ViT, width {patch[0]})", "sizes": sizes}


def _shape(part, name):
    return part.tensors[name].shape if name in part.tensors else None
