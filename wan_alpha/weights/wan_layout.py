"""Where the files of a Wan model are, and how large a model they hold.

A source is one of

    Wan2.1-T2V-1.3B/                         a download of Wan's own repositories
    ├── diffusion_pytorch_model*.safetensors   (A14B: in high_noise_model/ and low_noise_model/)
    ├── config.json
    ├── models_t5_umt5-xxl-enc-bf16.pth        (or .safetensors)
    ├── Wan2.1_VAE.pth
    └── google/umt5-xxl/
    ["dit.safetensors", "t5.pth", "Wan2.1_VAE.pth"], as a list or as JSON; a sharded model is a list within the list
    Wan-AI/Wan2.1-T2V-1.3B:diffusion_pytorch_model*.safetensors,Wan-AI/Wan2.1-T2V-1.3B:models_t5_umt5-xxl-enc-bf16.pth

Sizes come from the shapes of the tensors, never from hashes.
"""

import glob
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open

from wan_alpha.errors import CheckpointError, ConfigError
from wan_alpha.weights.io import load_state_dict, read_metadata

TOKENIZER_FOLDER = Path("google") / "umt5-xxl"
_SIGNATURES = {
    "dit": "patch_embedding.weight",
    "text_encoder": "token_embedding.weight",
    "vae": "decoder.conv1.weight",
}
_REAL_HEAD_SIZE, _SMALLEST_REAL_DIM = 128, 1536


@dataclass
class WanFiles:
    """The files of one Wan model; each model is a list of shards, empty where the source has none.

    `dit_low_noise` is the second expert of a two-expert model (A14B), `dit` then the one for high noise.
    """

    dit: list[Path] = field(default_factory=list)
    dit_low_noise: list[Path] = field(default_factory=list)
    text_encoder: list[Path] = field(default_factory=list)
    vae: list[Path] = field(default_factory=list)
    tokenizer: Path | None = None


def find_wan_files(source, tokenizer_path=None):
    """Find the files of a Wan model.

    Args:
        source: a folder, a list or JSON of file paths, or "model_id:pattern,..." (see the top of this module).
        tokenizer_path: folder of the tokenizer; by default google/umt5-xxl in the folder or beside any of the files.

    Raises:
        CheckpointError: nothing there, a missing shard, no Wan model, or one that cannot be downloaded.
        ConfigError: a source that is none of the three.
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
        files = _sort_files([_fetch(part.strip()) for part in source.split(",") if part.strip()])
    elif Path(source).is_file():
        files = _sort_files([source])
    else:
        raise CheckpointError(f"{source}: no such folder; expected a Wan download, a list of files or model_id:pattern")
    if tokenizer_path is not None:
        files.tokenizer = Path(tokenizer_path)
    if files.tokenizer is not None and not files.tokenizer.is_dir():
        raise CheckpointError(f"{files.tokenizer}: no such tokenizer folder; expected Wan's google/umt5-xxl")
    return files


def weight_shapes(paths):
    """Name -> shape of every tensor in a model's shards; of safetensors only the header is read.

    Raises:
        CheckpointError: unreadable, or a name that two shards share.
    """
    shapes = {}
    for path in paths:
        found = _shapes_in(Path(path))
        twice = shapes.keys() & found.keys()
        if twice:
            raise CheckpointError(f"{path}: {min(twice)} is in another shard too; are these files of one model?")
        shapes |= found
    return shapes


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
        "num_layers": _num_blocks(shapes),
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
        "num_layers": _num_blocks(shapes),
        "num_buckets": num_buckets,
        "shared_pos": shared,
    }


def _scan_folder(folder):
    if (folder / "model_index.json").is_file():
        raise CheckpointError(f"{folder}: expected Wan's original layout, found diffusers' (model_index.json)")
    experts = [folder / "high_noise_model", folder / "low_noise_model"]
    if all(expert.is_dir() for expert in experts):
        dit, dit_low_noise = (_shards(expert) for expert in experts)
    else:
        dit, dit_low_noise = _shards(folder), []
    texts = sorted([*folder.glob("models_t5*.safetensors"), *folder.glob("models_t5*.pth")])
    vaes = sorted([*folder.glob("Wan2.*_VAE.safetensors"), *folder.glob("Wan2.*_VAE.pth")])
    tokenizer = folder / TOKENIZER_FOLDER
    # The safetensors comes last in both lists, and is read lazily: prefer it where a download holds both.
    return WanFiles(dit, dit_low_noise, texts[-1:], vaes[-1:], tokenizer if tokenizer.is_dir() else None)


def _shards(folder):
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    if not index.is_file():
        return sorted(folder.glob("diffusion_pytorch_model*.safetensors"))
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (json.JSONDecodeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{index}: expected a weight_map of tensors to shards ({error})") from error
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder}: expected {len(names)} shards, {', '.join(missing)} missing; download again")
    return [folder / name for name in names]


def _sort_files(entries):
    files = WanFiles()
    if not isinstance(entries, (list, tuple)) or not entries:
        raise ConfigError(f"model files: expected a list of paths, each a path or a list of shards, found {entries!r}")
    for entry in entries:
        paths = [Path(entry)] if isinstance(entry, (str, Path)) else [Path(shard) for shard in entry]
        if len(paths) == 1 and paths[0].is_dir():
            files.tokenizer = paths[0]
            continue
        kind = _what_is(paths)
        if kind == "dit" and files.dit:
            kind = "dit_low_noise"
        if getattr(files, kind):
            raise CheckpointError(f"{paths[0]}: a second {kind}, after {getattr(files, kind)[0]}")
        setattr(files, kind, paths)
    if files.tokenizer is None:
        folders = [paths[0].parent for paths in (files.text_encoder, files.dit, files.vae) if paths]
        files.tokenizer = next((one / TOKENIZER_FOLDER for one in folders if (one / TOKENIZER_FOLDER).is_dir()), None)
    return files


def _what_is(paths):
    shapes = weight_shapes(paths)
    for kind, key in _SIGNATURES.items():
        if key in shapes:
            return kind
    raise CheckpointError(
        f"{paths[0]}: expected a Wan DiT, text encoder or VAE in Wan's own naming "
        f"({', '.join(_SIGNATURES.values())}), found {min(shapes, default='nothing')}"
    )


def _fetch(part):
    """One "model_id:pattern" through diffsynth's downloader: a path, a list of shards, or a folder."""
    from diffsynth.core import ModelConfig
    from modelscope.hub.errors import NotExistError

    model_id, _, pattern = part.partition(":")
    if not model_id or not pattern:
        raise ConfigError(f"model source {part!r}: expected model_id:pattern")
    config = ModelConfig(model_id=model_id, origin_file_pattern=pattern)
    reason = ""
    try:
        config.download_if_necessary()
    except (OSError, ValueError, RuntimeError, NotExistError) as error:
        reason = f" ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
        config.path = sorted(glob.glob(pattern, root_dir=Path(config.local_model_path) / model_id))
        config.path = [str(Path(config.local_model_path) / model_id / path) for path in config.path]
    if not config.path:
        raise CheckpointError(
            f"{part}: cannot be downloaded{reason} and is not under {Path(config.local_model_path) / model_id}; "
            "put the files there, or name local files instead"
        )
    return sorted(config.path) if isinstance(config.path, list) else config.path


def _shapes_in(path):
    if path.suffix != ".safetensors":
        return {name: tuple(tensor.shape) for name, tensor in load_state_dict(path).items()}
    read_metadata(path)  # says what is wrong with a file that is missing or broken
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error


def _num_heads(path, dim):
    config_path = path.with_name("config.json")
    stated = read_metadata(path).get("num_heads")
    if config_path.is_file():
        try:
            stated = json.loads(config_path.read_text(encoding="utf-8")).get("num_heads", stated)
        except (json.JSONDecodeError, AttributeError) as error:
            raise CheckpointError(f"{config_path}: expected Wan's config.json ({error})") from error
    if stated is not None:
        if not str(stated).isdigit() or int(stated) < 1:
            raise CheckpointError(f"{config_path}: expected a whole number of heads, found num_heads = {stated!r}")
        return int(stated)
    if dim < _SMALLEST_REAL_DIM:
        raise CheckpointError(
            f"{path}: expected num_heads in {config_path.name} beside it: a width of {dim} is none of the released"
        )
    return dim // _REAL_HEAD_SIZE


def _num_blocks(shapes):
    numbers = [int(match[1]) for match in (re.match(r"blocks\.(\d+)\.", name) for name in shapes) if match]
    return max(numbers, default=-1) + 1


def _shape(shapes, name, num_dimensions, where):
    shape = shapes.get(name)
    if shape is None or len(shape) != num_dimensions:
        found = shape or "no such tensor"
        raise CheckpointError(f"{where}: expected {name} with {num_dimensions} dimensions, found {found}")
    return shape
