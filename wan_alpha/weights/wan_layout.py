"""Where the files of a Wan model are, and how large a model they hold.

A source is one of

    Wan2.1-T2V-1.3B/        a folder in any layout that ``wan-alpha inspect`` knows: Wan's own, diffusers', ComfyUI's
    ["dit.safetensors", "t5.pth", "Wan2.1_VAE.pth"], as a list or as JSON; a sharded model is a list within the list
    Wan-AI/Wan2.1-T2V-1.3B  the id of a known model at ModelScope or Hugging Face
    Wan-AI/Wan2.1-T2V-1.3B:diffusion_pytorch_model*.safetensors,Wan-AI/Wan2.1-T2V-1.3B:models_t5_umt5-xxl-enc-bf16.pth

What a file holds, and its sizes, come from the shapes of the tensors, never from names or hashes.
"""

import glob
import json
from dataclasses import dataclass, field
from pathlib import Path

from wan_alpha.errors import CheckpointError, ConfigError
from wan_alpha.weights.headers import read_header
from wan_alpha.weights.recognise.configs import stated_num_heads
from wan_alpha.weights.recognise.files import merged_tensors, read_headers, recognise_headers
from wan_alpha.weights.recognise.folder import (
    MODEL_INDEX,
    assign_experts,
    read_boundary,
    tokenizer_folders,
    weight_files,
)
from wan_alpha.weights.recognise.wan_parts import count_blocks
from wan_alpha.weights.registry import known_models

TOKENIZER_FOLDER = Path("google") / "umt5-xxl"
DITS = ("dit", "dit_low_noise")
_PARTS = (*DITS, "text_encoder", "vae", "image_encoder")
_REAL_HEAD_SIZE, _SMALLEST_REAL_DIM = 128, 1536


@dataclass
class WanFiles:
    """The files of one Wan model; each model is a list of shards, empty where the source has none.

    `dit_low_noise` is the second expert of a two-expert model (A14B), `dit` then the one for high noise, and `boundary`
    the sigma below which the second takes over, where the folder says it.
    """

    dit: list[Path] = field(default_factory=list)
    dit_low_noise: list[Path] = field(default_factory=list)
    text_encoder: list[Path] = field(default_factory=list)
    vae: list[Path] = field(default_factory=list)
    image_encoder: list[Path] = field(default_factory=list)
    tokenizer: Path | None = None
    boundary: float | None = None


def find_wan_files(source, tokenizer_path=None, *, parts=None, local_only=False):
    """Find the files of a Wan model.

    Args:
        source: a folder, a list or JSON of file paths, a model id, or "model_id:pattern,..." (see the top of this
            module).
        tokenizer_path: folder of the tokenizer; by default google/umt5-xxl or tokenizer in the folder, or beside any of
            the files.
        parts: fields of WanFiles that the caller uses, None for all: of a model id nothing else is downloaded.
        local_only: download nothing; what a model id names must lie in the downloads' folder.

    Raises:
        CheckpointError: nothing there, a missing shard, no Wan model, or one that cannot be downloaded.
        ConfigError: a source that is none of these.
    """
    if not isinstance(source, (str, Path)):
        files = _sort_files(source)
    elif Path(source).is_dir():
        files = _scan_folder(Path(source))
    elif str(source).lstrip().startswith("["):
        try:
            files = _sort_files(json.loads(str(source)))
        except json.JSONDecodeError as error:
            raise ConfigError(f"model source {source}: not valid JSON ({error})") from error
    elif isinstance(source, str) and ":" in source and not Path(source).exists():
        files = _sort_files([_fetch(part.strip(), local_only) for part in source.split(",") if part.strip()])
    elif Path(source).is_file():
        files = _sort_files([source])
    elif model := next((one for one in known_models().values() if one.hub == str(source)), None):
        wanted = [pattern for part, pattern in model.components.items() if parts is None or part in parts]
        files = _sort_files([_fetch(f"{model.hub}:{one}", local_only) for one in wanted]) if wanted else WanFiles()
    else:
        raise CheckpointError(
            f"{source}: no such folder; expected a Wan folder, a list of files, a model id or model_id:pattern"
        )
    if tokenizer_path is not None:
        files.tokenizer = Path(tokenizer_path)
    if files.tokenizer is not None and not files.tokenizer.is_dir():
        raise CheckpointError(f"{files.tokenizer}: no such tokenizer folder; expected Wan's google/umt5-xxl")
    return files


def model_of_id(source):
    """The registry's model whose id a source is, or whose files "model_id:pattern,..." names; None for any other source
    and for what is there under that name."""
    if not isinstance(source, (str, Path)) or Path(source).exists():
        return None
    ids = {part.strip().partition(":")[0] for part in str(source).split(",")}
    return next((model for model in known_models().values() if ids == {model.hub}), None)


def part_files(path, kind):
    """The files of one part, where a path is that part's own file, one of its shards, or the folder of a whole model.

    Args:
        kind: "dit", "text_encoder", "vae" or "image_encoder".

    Raises:
        CheckpointError: nothing there, or a folder without that part.
    """
    path = Path(path)
    if not path.is_dir():
        return [header.path for header in read_headers(path)]
    files = getattr(_scan_folder(path), kind)
    if not files:
        raise CheckpointError(f"{path}: no Wan {kind} in this folder; see `wan-alpha inspect {path}`")
    return files


def vae_file(path):
    """The file of a VAE: the path itself, or where it is a model's folder, the VAE's file in it.

    Raises:
        CheckpointError: a folder without a VAE.
    """
    path = Path(path)
    return part_files(path, "vae")[0] if path.is_dir() else path


def weight_shapes(paths):
    """Name -> shape of every tensor in a model's shards; only headers are read.

    Raises:
        CheckpointError: unreadable, or a name that two shards share.
    """
    tensors, _ = merged_tensors([read_header(path) for path in paths])
    return {name: info.shape for name, info in tensors.items()}


def infer_dit_sizes(shapes, paths):
    """Arguments of diffsynth's ``WanModel`` for a DiT's shapes, at any size.

    The number of heads leaves no trace in the shapes: it is read from the ``config.json`` beside the first file or from
    that file's metadata; without either, heads are 128 wide, as in every released Wan.

    Args:
        shapes: name -> shape, from :func:`weight_shapes`; paths: the files, for the messages and the config.

    Raises:
        CheckpointError: no Wan DiT, or a model of another width than the released ones without a head count.
    """
    where = paths[0]
    dim, in_dim, *patch = _shape(shapes, "patch_embedding.weight", 5, where)
    num_heads = _num_heads(Path(where), dim)
    if dim % num_heads or (dim // num_heads) % 2:
        raise CheckpointError(f"{where}: expected an even head size, found {num_heads} heads for a width of {dim}")
    out_rows = _shape(shapes, "head.head.weight", 2, where)[0]
    return {
        "dim": dim,
        "in_dim": in_dim,
        "ffn_dim": _shape(shapes, "blocks.0.ffn.0.weight", 2, where)[0],
        "out_dim": out_rows // (patch[0] * patch[1] * patch[2]),
        "text_dim": _shape(shapes, "text_embedding.0.weight", 2, where)[1],
        "freq_dim": _shape(shapes, "time_embedding.0.weight", 2, where)[1],
        "eps": 1e-6,
        "patch_size": tuple(patch),
        "num_heads": num_heads,
        "num_layers": count_blocks(shapes),
        "has_image_input": "img_emb.proj.0.weight" in shapes,
        "has_image_pos_emb": "img_emb.emb_pos" in shapes,
        "has_ref_conv": "ref_conv.weight" in shapes,
    }


def infer_text_encoder_sizes(shapes, paths):
    """Arguments of diffsynth's ``WanTextEncoder`` for a UMT5 encoder's shapes, at any size.

    Raises:
        CheckpointError: no UMT5 encoder in Wan's naming.
    """
    where = paths[0]
    vocabulary, dim = _shape(shapes, "token_embedding.weight", 2, where)
    shared = "pos_embedding.embedding.weight" in shapes
    position = "pos_embedding.embedding.weight" if shared else "blocks.0.pos_embedding.embedding.weight"
    num_buckets, num_heads = _shape(shapes, position, 2, where)
    return {
        "vocab": vocabulary,
        "dim": dim,
        "dim_attn": _shape(shapes, "blocks.0.attn.q.weight", 2, where)[0],
        "dim_ffn": _shape(shapes, "blocks.0.ffn.fc1.weight", 2, where)[0],
        "num_heads": num_heads,
        "num_layers": count_blocks(shapes),
        "num_buckets": num_buckets,
        "shared_pos": shared,
    }


def _scan_folder(folder):
    components, unreadable = [], []
    for group in weight_files(folder):
        try:
            components += recognise_headers(read_headers(group))
        except CheckpointError as error:
            unreadable.append(error)
    files = WanFiles(boundary=read_boundary(folder))
    for kind, chosen in _choose(folder, assign_experts(components)).items():
        setattr(files, kind, list(chosen.paths))
    tokenizers = [folder / TOKENIZER_FOLDER, *tokenizer_folders(folder)]
    files.tokenizer = next((one for one in tokenizers if one.is_dir()), None)
    if unreadable and not all((files.dit, files.text_encoder, files.vae)):
        raise unreadable[0]  # it may be the one that is lacking
    if not any(getattr(files, kind) for kind in _PARTS) and files.tokenizer is None:
        problem = next((problem for one in components for problem in one.problems), "")
        index = folder / MODEL_INDEX
        reason = f"{index.name} is there, but no weights are" if index.is_file() else "no Wan model in it"
        raise CheckpointError(f"{problem or f'{folder}: {reason}'}; see `wan-alpha inspect {folder}`")
    return files


def _choose(folder, components):
    """One component for each part; a DiT's own VAE, and safetensors before pickles, which hold the same."""
    chosen = {}
    for kind in _PARTS:
        found = [one for one in components if one.kind == kind and not one.problems]
        if kind in ("dit", "dit_low_noise") and len(found) > 1:
            listed = ", ".join(str(one.paths[0].relative_to(folder)) for one in found[:4])
            raise CheckpointError(f"{folder}: {len(found)} DiTs ({listed}); name the files of one model as a list")
        if kind == "vae" and len(found) > 1 and "dit" in chosen:
            channels = chosen["dit"].sizes["out_dim"]
            found = [one for one in found if one.sizes["latent_channels"] == channels] or found
        found.sort(key=lambda one: one.paths[0].suffix != ".safetensors")
        if found:
            chosen[kind] = found[0]
    return chosen


def _sort_files(entries):
    files = WanFiles()
    if not isinstance(entries, (list, tuple)) or not entries:
        raise ConfigError(f"model files: expected a list of paths, each a path or a list of shards, found {entries!r}")
    components = []
    for entry in entries:
        paths = [Path(entry)] if isinstance(entry, (str, Path)) else [Path(shard) for shard in entry]
        if len(paths) == 1 and paths[0].is_dir():
            files.tokenizer = paths[0]
            continue
        headers = read_headers(paths[0]) if len(paths) == 1 else [read_header(path) for path in paths]
        components += [(one, paths) for one in recognise_headers(headers)]
    for component, paths in zip(
        assign_experts([one for one, _ in components]), [p for _, p in components], strict=True
    ):
        _take(files, component, paths)
    if files.tokenizer is None:
        folders = [paths[0].parent for paths in (files.text_encoder, files.dit, files.vae) if paths]
        beside = [folder / TOKENIZER_FOLDER for folder in folders] + [folder.parent / "tokenizer" for folder in folders]
        files.tokenizer = next((one for one in beside if one.is_dir()), None)
    return files


def _take(files, component, paths):
    kind = component.kind
    if kind not in _PARTS or component.problems:
        problem = component.problems[0] if component.problems else f"{paths[0]}: found {component.title}"
        raise CheckpointError(f"{problem} (expected a Wan DiT, text encoder, VAE or image encoder)")
    if kind == "dit" and files.dit:
        kind = "dit_low_noise"
    if getattr(files, kind):
        raise CheckpointError(f"{paths[0]}: a second {kind}, after {getattr(files, kind)[0]}")
    setattr(files, kind, list(component.paths))


def _fetch(part, local_only):
    """One "model_id:pattern" through diffsynth's downloader, or from where that keeps its files: a path, a list of
    shards, or a folder."""
    from diffsynth.core import ModelConfig
    from modelscope.hub.errors import NotExistError

    model_id, _, pattern = part.partition(":")
    if not model_id or not pattern:
        raise ConfigError(f"model source {part!r}: expected model_id:pattern")
    config = ModelConfig(model_id=model_id, origin_file_pattern=pattern)
    config.reset_local_model_path()
    folder, reason = Path(config.local_model_path) / model_id, "cannot be downloaded"
    try:
        if local_only:
            reason = "a plan downloads nothing,"
        else:
            config.download_if_necessary()
    except (OSError, ValueError, RuntimeError, NotExistError) as error:
        reason += f" ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
    found = config.path or [str(folder / path) for path in glob.glob(pattern, root_dir=folder)]
    if not found:
        raise CheckpointError(
            f"{part}: {reason} and is not under {folder}; put the files there, or name local files instead"
        )
    return sorted(found) if isinstance(found, list) else found


def _num_heads(path, dim):
    config_path = path.with_name("config.json")
    stated = read_header(path).metadata.get("num_heads") if path.is_file() else None
    if stated is not None and (not stated.isdigit() or int(stated) < 1):
        raise CheckpointError(f"{path}: expected a whole number of heads, found num_heads = {stated!r} in its metadata")
    if config_path.is_file():
        stated = stated_num_heads(config_path) or stated
    if stated is not None:
        return int(stated)
    if dim < _SMALLEST_REAL_DIM:
        raise CheckpointError(
            f"{path}: expected num_heads in {config_path.name} beside it: a width of {dim} is none of the released"
        )
    return dim // _REAL_HEAD_SIZE


def _shape(shapes, name, num_dimensions, where):
    shape = shapes.get(name)
    if shape is None or len(shape) != num_dimensions:
        found = shape or "no such tensor"
        raise CheckpointError(f"{where}: expected {name} with {num_dimensions} dimensions, found {found}")
    return shape
