"""What a folder or file is as a whole: its layout, the model in it, what is there and what is missing."""

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from wan_alpha.errors import CheckpointError
from wan_alpha.weights.headers import WEIGHT_SUFFIXES
from wan_alpha.weights.recognise.component import KINDS, Component
from wan_alpha.weights.recognise.files import read_headers, recognise_headers
from wan_alpha.weights.recognise.toolkit import toolkit_folder
from wan_alpha.weights.recognise.wan_parts import expert_of
from wan_alpha.weights.registry import families_of, known_models
from wan_alpha.weights.shards import INDEX_ENDINGS, index_names, read_json

MODEL_INDEX = "model_index.json"
TOKENIZER_FILES = ("tokenizer.json", "spiece.model", "tokenizer_config.json")
MODEL_PARTS = ("dit", "dit_low_noise", "text_encoder", "tokenizer", "vae", "image_encoder")
_MAX_DEPTH, _MAX_FILES = 4, 500
# Where diffusers keeps each part.
DIFFUSERS_FOLDERS = {
    "dit": "transformer", "dit_low_noise": "transformer_2", "text_encoder": "text_encoder", "tokenizer": "tokenizer",
    "vae": "vae", "image_encoder": "image_encoder",
}  # fmt: skip


@dataclass(frozen=True)
class Recognised:
    """What a path is.

    Attributes:
        path: as given; layout: "original", "diffusers", "comfyui", "toolkit", "file" or "files".
        components: what was found; a file that cannot be read is one of kind "unknown" with its problem.
        families: names of the registry's models that it may be, the first the likeliest.
        missing: part of the model -> the file or folder to put there.
        boundary: sigma between two experts, or None; notes: remarks.
        num_bytes_read: what was read to learn all this.
    """

    path: Path
    layout: str
    components: tuple[Component, ...]
    families: tuple[str, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)
    boundary: float | None = None
    notes: tuple[str, ...] = ()
    num_bytes_read: int = 0

    def part(self, kind):
        """The component of one kind that can be used, or None; several of one kind: the first."""
        return next((one for one in self.components if one.kind == kind and not one.problems), None)

    def facts(self):
        """What ``weights.combinations`` asks of a model: the likeliest family's, with the experts that are here; {} of
        no known family."""
        if not self.families or self.families[0] not in known_models():
            return {}
        facts = dict(known_models()[self.families[0]].facts)
        return facts | ({} if self.part("dit_low_noise") is None else {"num_experts": 2})

    @property
    def problems(self):
        """Every component's problems."""
        return [problem for component in self.components for problem in component.problems]


def recognise(path):
    """Recognise a file or folder from headers and shapes.

    Raises:
        CheckpointError: there is nothing, or a single file that cannot be read.
    """
    path = Path(path)
    if path.is_file():
        headers = read_headers(path)
        components = tuple(recognise_headers(headers))
        num_bytes_read = sum(header.num_bytes_read for header in headers)
        return _assemble(path, "file", components, num_bytes_read)
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such file or folder")
    made_here = toolkit_folder(path)
    if made_here is not None:
        return Recognised(path, "toolkit", (made_here,))
    components, num_bytes_read = [], 0
    for group in weight_files(path):
        try:
            headers = read_headers(group)
        except CheckpointError as error:
            components.append(Component("unknown", "cannot be read", (group,), problems=(str(error),)))
            continue
        num_bytes_read += sum(header.num_bytes_read for header in headers)
        components += recognise_headers(headers)
    components += [Component("tokenizer", "tokenizer", (folder,)) for folder in tokenizer_folders(path)]
    if not components:
        raise CheckpointError(f"{path}: no weights in this folder; expected {', '.join(WEIGHT_SUFFIXES)} files")
    return _assemble(path, _layout(path, components), tuple(components), num_bytes_read)


def weight_files(folder):
    """One path for each model in a folder: its index, its first shard, or its file; sorted, four levels deep."""
    found, taken = [], set()
    for here, _, names in _walk(folder):
        indices = [name for name in names if name.endswith(INDEX_ENDINGS)]
        for name in indices:
            found.append(here / name)
            taken |= {here / shard for shard in index_names(here / name)}
        for name in names:
            path = here / name
            if path.suffix not in WEIGHT_SUFFIXES or path in taken or name.startswith("."):
                continue
            first = _first_shard(path)
            if first == path or not first.exists():
                found.append(path)
    if len(found) > _MAX_FILES:
        raise CheckpointError(f"{folder}: more than {_MAX_FILES} weight files; name the folder of one model")
    return found


def _walk(folder):
    folder = Path(folder)
    for here, folders, names in os.walk(folder):
        depth = len(Path(here).relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if depth < _MAX_DEPTH else []
        yield Path(here), folders, sorted(names)


def _first_shard(path):
    return path.with_name(re.sub(r"-\d{5}-of-(\d{5})\.", r"-00001-of-\1.", path.name))


def tokenizer_folders(folder):
    """Yield the folders in a folder that hold a tokenizer of UMT5."""
    for here, _, names in _walk(folder):
        if "tokenizer_config.json" in names and set(names) & {"tokenizer.json", "spiece.model"}:
            if "t5" in here.as_posix().lower() or here.name == "tokenizer":
                yield here


def _layout(path, components):
    if (path / MODEL_INDEX).is_file() or (path / "transformer").is_dir():
        return "diffusers"
    namings = {one.naming for one in components if one.kind in MODEL_PARTS}
    return "comfyui" if "comfyui" in namings else "original" if namings else "files"


def _assemble(path, layout, components, num_bytes_read):
    components = assign_experts(components)
    dits = [one for one in components if one.kind in ("dit", "dit_low_noise") and not one.problems]
    families, notes, missing = [], [], {}
    if dits:
        num_experts = len(dits) if layout != "file" else None if expert_of(dits[0].paths) is None else 2
        families = list(dits[0].families) if layout == "file" else families_of(dits[0].sizes, min(num_experts, 2))
        families = families or list(dits[0].families)
    elif len(adapters := [one for one in components if one.kind in ("adapter", "placeholders")]) == len(components):
        families = list(adapters[0].families)
    boundary = read_boundary(path) if path.is_dir() else None
    if families and len(dits) == 2 and boundary is None:
        boundary = known_models()[families[0]].boundary
    if families and dits and layout != "file":
        missing = _missing(components, families[0], layout)
    if len(dits) > 2:
        notes.append(f"{len(dits)} DiTs are in this folder: name the files of one model")
    return Recognised(path, layout, components, tuple(families), missing, boundary, tuple(notes), num_bytes_read)


def assign_experts(components):
    """Components again, as a tuple, with two DiTs made the two experts of one model.

    Two DiTs are two experts: the low-noise one by its name, else the second.
    """
    places = [place for place, one in enumerate(components) if one.kind == "dit" and not one.problems]
    if len(places) != 2 or components[places[0]].sizes != components[places[1]].sizes:
        return tuple(components)
    low = next((place for place in places if expert_of(components[place].paths) == "low"), None)
    if low is None:
        high = next((place for place in places if expert_of(components[place].paths) == "high"), places[0])
        low = next(place for place in places if place != high)
    renamed = {}
    for place in places:
        kind, expert = ("dit_low_noise", "low") if place == low else ("dit", "high")
        names = families_of(components[place].sizes, 2) or components[place].families
        title = f"{names[0] if names else 'Wan'}, {expert}-noise expert"
        renamed[place] = replace(components[place], kind=kind, title=title, families=tuple(names))
    return tuple(renamed.get(place, one) for place, one in enumerate(components))


def read_boundary(folder):
    """Sigma between the two experts, where the folder's model_index.json says it; else None."""
    if not (folder / MODEL_INDEX).is_file():
        return None
    try:
        value = read_json(folder / MODEL_INDEX, "diffusers' model_index.json").get("boundary_ratio")
    except CheckpointError:
        return None
    return float(value) if isinstance(value, (int, float)) and 0 < value < 1 else None


def _missing(components, family, layout):
    model = known_models()[family]
    there = {one.kind for one in components if not one.problems}
    wanted = dict(model.components)
    if layout == "diffusers":
        wanted = {kind: f"{DIFFUSERS_FOLDERS[kind]}/" for kind in wanted}
    return {KINDS[kind]: file for kind, file in wanted.items() if kind not in there}
