"""A Wan pipeline built from files of any layout, by the shapes of their tensors, never holding a model twice."""

import torch
from diffsynth.models.wan_video_dit import WanModel, precompute_freqs_cis_3d
from diffsynth.models.wan_video_text_encoder import HuggingfaceTokenizer, WanTextEncoder
from diffsynth.models.wan_video_vae import WanVideoVAE, WanVideoVAE38

from wan_alpha.errors import CheckpointError, ConfigError
from wan_alpha.models.base_vae import WAN21_VAE, empty_vae, shape_known_vae
from wan_alpha.models.fill import fill_module
from wan_alpha.models.image_encoder import build_image_encoder
from wan_alpha.weights.headers import read_header
from wan_alpha.weights.part_reader import find_part_in
from wan_alpha.weights.registry import known_models
from wan_alpha.weights.wan_layout import DITS, find_wan_files, infer_dit_sizes, infer_text_encoder_sizes

COMPONENTS = ("dit", "text_encoder", "tokenizer")
ALL_COMPONENTS = (*COMPONENTS, "vae", "image_encoder")
MAX_TOKENS = 512
DEFAULT_BOUNDARY = 0.875


def load_wan(
    source, *, components=COMPONENTS, device="cpu", dtype=torch.float32, tokenizer_path=None, callback=None
):  # fmt: skip
    """Build a diffsynth ``WanVideoPipeline`` with the named parts of a Wan model, in eval mode, without gradients.

    Args:
        source: a folder in any layout, files, a model id or "model_id:pattern,..."; see ``weights.wan_layout``.
        components: of "dit" (with the low-noise expert as ``pipe.dit2``, and ``pipe.boundary``, where there are two),
            "text_encoder", "tokenizer", "vae", "image_encoder"; nothing else is read.
        device, dtype: where the weights go and in what dtype; no second copy is held on the way.
        tokenizer_path: folder of the tokenizer where it is not in its usual place.
        callback: called as callback("loading", tensors done, tensors in all).

    Raises:
        CheckpointError: a part that the source has not, or weights that do not fit.
        ConfigError: an unknown component or source.
    """
    unknown = set(components) - set(ALL_COMPONENTS)
    if unknown:
        raise ConfigError(f"components {sorted(unknown)} are unknown: choose of {', '.join(ALL_COMPONENTS)}")
    from diffsynth.pipelines.wan_video import WanVideoPipeline

    files = find_wan_files(source, tokenizer_path, parts=(*components, *(DITS if "dit" in components else ())))
    wanted = {}  # attribute of the pipeline -> (function, files)
    if "dit" in components:
        wanted["dit"] = (load_dit, _required(files.dit, "DiT", source))
        if files.dit_low_noise:
            wanted["dit2"] = (load_dit, files.dit_low_noise)
    if "text_encoder" in components:
        wanted["text_encoder"] = (load_text_encoder, _required(files.text_encoder, "text encoder", source))
    if "vae" in components:
        wanted["vae"] = (load_vae, _required(files.vae, "VAE", source))
    if "image_encoder" in components:
        wanted["image_encoder"] = (load_image_encoder, _required(files.image_encoder, "CLIP image encoder", source))
    if "tokenizer" in components:
        _required(files.tokenizer, "tokenizer (google/umt5-xxl)", source)
    progress = _Counter(callback, [paths for _, paths in wanted.values()])
    pipe = WanVideoPipeline(device=device, torch_dtype=dtype)
    for name, (load, paths) in wanted.items():
        setattr(pipe, name, load(paths, device, dtype, progress))
    if "tokenizer" in components:
        pipe.tokenizer = load_tokenizer(files.tokenizer)
    pipe.boundary = find_boundary(files) if "dit2" in wanted else None
    return pipe


def load_dit(paths, device="cpu", dtype=torch.float32, callback=None):
    """A ``WanModel`` from the shards of one DiT in any naming, its size inferred.

    Raises:
        CheckpointError: no Wan DiT, or tensors missing, left over or of another shape.
    """
    part = find_part_in(paths, "dit")
    return fill_module(_shaped_dit(part, paths), paths, part, device, dtype, callback)


def shape_dit(paths):
    """A ``WanModel`` of the sizes in files' headers, on the meta device, in float32; no weight is read.

    Raises:
        CheckpointError: no Wan DiT.
    """
    return _shaped_dit(find_part_in(paths, "dit"), paths)


def _shaped_dit(part, paths):
    return _meta_dit(infer_dit_sizes(_shapes(part), paths))


def _meta_dit(sizes):
    with torch.device("meta"):
        dit = WanModel(**sizes, **_pipeline_flags(sizes))
    # The rotary table is no parameter or buffer: made on the meta device, it would stay there.
    dit.freqs = precompute_freqs_cis_3d(sizes["dim"] // sizes["num_heads"])
    return dit


def shape_known_dit(sizes, text_dim=4096):
    """As :func:`shape_dit`, with the sizes of a registry entry (``KnownModel.dit``)."""
    own = {"text_dim": text_dim, "freq_dim": 256, "eps": 1e-6, "patch_size": (1, 2, 2)}
    own |= {name: sizes[name] for name in ("dim", "ffn_dim", "in_dim", "out_dim", "num_heads", "num_layers")}
    return _meta_dit({**own, "has_image_input": sizes["image_input"]})


def load_text_encoder(paths, device="cpu", dtype=torch.float32, callback=None):
    """A ``WanTextEncoder`` from its files in any naming, its size inferred.

    Raises:
        CheckpointError: no UMT5 encoder, or tensors missing, left over or of another shape.
    """
    part = find_part_in(paths, "text_encoder")
    with torch.device("meta"):
        encoder = WanTextEncoder(**infer_text_encoder_sizes(_shapes(part), paths))
    return fill_module(encoder, paths, part, device, dtype, callback)


def shape_text_encoder(paths):
    """A ``WanTextEncoder`` of the sizes in files' headers, on the meta device, in float32.

    Raises:
        CheckpointError: no UMT5 encoder.
    """
    return shape_known_text_encoder(infer_text_encoder_sizes(_shapes(find_part_in(paths, "text_encoder")), paths))


def shape_known_text_encoder(sizes):
    """As :func:`shape_text_encoder`, with the sizes of a registry entry (``KnownModel.text_encoder``)."""
    with torch.device("meta"):
        return WanTextEncoder(**sizes)


def load_vae(paths, device="cpu", dtype=torch.float32, callback=None):
    """A ``WanVideoVAE`` (16 channels) or ``WanVideoVAE38`` (48) from its files in any naming, its width inferred.

    Raises:
        CheckpointError: no Wan VAE, or tensors missing, left over or of another shape.
    """
    part = find_part_in(paths, "vae")
    kind, model = empty_vae(_shapes(part), paths[0])
    with torch.device("meta"):
        vae = WanVideoVAE() if kind is WAN21_VAE else WanVideoVAE38()
    # Statistics are plain attributes: the meta device would have taken their values.
    vae.mean, vae.std = torch.tensor(kind.latent_mean), torch.tensor(kind.latent_std)
    vae.scale = [vae.mean, 1.0 / vae.std]
    vae.model = fill_module(model, paths, part, device, dtype, callback)
    return vae.eval().requires_grad_(False)


def load_image_encoder(paths, device="cpu", dtype=torch.float32, callback=None):
    """diffsynth's ``WanImageEncoder`` (CLIP's vision half) from its files in any naming.

    Raises:
        CheckpointError: no such encoder, or tensors missing, left over or of another shape.
    """
    part = find_part_in(paths, "image_encoder")
    return fill_module(build_image_encoder(_shapes(part), paths[0]), paths, part, device, dtype, callback)


def load_tokenizer(folder):
    """The tokenizer in a folder; prompts are padded to 512 tokens, or to the fewer that it was made for.

    Raises:
        CheckpointError: the folder holds no tokenizer, or one that is code of its own.
    """
    try:
        # Without the False, transformers asks on a terminal whether to run the code that a folder may name.
        tokenizer = HuggingfaceTokenizer(
            str(folder), seq_len=MAX_TOKENS, clean="whitespace", local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder}: not a tokenizer folder ({str(error).splitlines()[0]})") from error
    tokenizer.seq_len = min(MAX_TOKENS, tokenizer.tokenizer.model_max_length)
    return tokenizer


def dit_shapes(sizes, text_dim=4096):
    """Name -> shape of the tensors of a DiT with the sizes of a registry entry (``KnownModel.dit``)."""
    model = shape_known_dit(sizes, text_dim)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def text_encoder_shapes(sizes):
    """Name -> shape of the tensors of a text encoder with the sizes of a registry entry (``text_encoder``)."""
    model = shape_known_text_encoder(sizes)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def vae_shapes(sizes):
    """Name -> shape of the tensors of a Wan VAE with the sizes of a registry entry (``vae``)."""
    model = shape_known_vae(sizes)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


class _Counter:
    """Counts the tensors of several models for one callback."""

    def __init__(self, callback, models):
        self.callback, self.done = callback, 0
        self.total = sum(_num_tensors(paths) for paths in models) if callback else 0

    def __call__(self, number):
        self.done += number
        if self.callback is not None:
            self.callback("loading", self.done, max(self.total, self.done))


def _num_tensors(paths):
    return sum(len(read_header(path).tensors) for path in paths)


def _pipeline_flags(sizes):
    """What diffsynth's pipeline has to know of a DiT that its shapes imply."""
    if sizes["in_dim"] == 48 == sizes["out_dim"]:  # TI2V-5B: an image is the first latent frame itself
        return {
            "seperated_timestep": True, "require_clip_embedding": False, "require_vae_embedding": False,
            "fuse_vae_embedding_in_latents": True,
        }  # fmt: skip
    return {"require_clip_embedding": sizes["has_image_input"]}


def _shapes(part):
    return {name: info.shape for name, info in part.tensors.items()}


def _required(found, what, source):
    if not found:
        raise CheckpointError(f"{source}: expected a {what} there, found none")
    return found


def find_boundary(files):
    """Sigma below which the low-noise expert takes over: the folder's own, or that of the known model so large."""
    if files.boundary is not None:
        return files.boundary
    expert = infer_dit_sizes(_shapes(find_part_in(files.dit, "dit")), files.dit)
    for model in known_models().values():
        if model.num_experts == 2 and all(model.dit[name] == expert[name] for name in ("dim", "in_dim", "num_layers")):
            return model.boundary
    return DEFAULT_BOUNDARY
