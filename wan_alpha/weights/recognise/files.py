"""What one weight file, or the shards of one model, hold."""

from pathlib import Path

from wan_alpha.errors import CheckpointError
from wan_alpha.weights.headers import read_header, read_scalar
from wan_alpha.weights.parts import find_parts
from wan_alpha.weights.recognise.adapters import describe_adapter, is_adapter
from wan_alpha.weights.recognise.component import Component, counted
from wan_alpha.weights.recognise.foreign import foreign_model, image_vae
from wan_alpha.weights.recognise.toolkit import bare_tensor, cache_item, placeholders, rgba_vae
from wan_alpha.weights.recognise.wan_parts import describe_part
from wan_alpha.weights.shards import INDEX_ENDINGS, check_index, index_names, numbered_shards

_MAX_ALPHAS = 2000


def read_headers(path):
    """The headers of the model that a file belongs to: its own, its shards', or those of an index.

    Raises:
        CheckpointError: a header that cannot be read, or a shard that is missing.
    """
    path = Path(path)
    if path.name.endswith(INDEX_ENDINGS):
        return check_index(path)
    for ending in INDEX_ENDINGS:
        for index in sorted(path.parent.glob(f"*{ending}")):
            if path.name in index_names(index):
                return check_index(index)
    return [read_header(shard) for shard in numbered_shards(path)]


def merged_tensors(headers):
    """(name -> TensorInfo, name -> file) of several shards.

    Raises:
        CheckpointError: a name that two of them share.
    """
    tensors, files = {}, {}
    for header in headers:
        twice = tensors.keys() & header.tensors.keys()
        if twice:
            raise CheckpointError(f"{header.path}: {min(twice)} is in another shard too; are these files of one model?")
        tensors |= header.tensors
        files |= dict.fromkeys(header.tensors, header.path)
    return tensors, files


def recognise_headers(headers):
    """What the headers of one model's files say that it is.

    Returns:
        list of Component, more than one where a file holds several parts of a model.

    Raises:
        CheckpointError: two shards share a name.
    """
    paths = tuple(header.path for header in headers)
    if headers[0].is_bare:
        return [bare_tensor(headers[0].tensors[""], paths)]
    tensors, files = merged_tensors(headers)
    metadata = headers[0].metadata
    made_here = (
        rgba_vae(tensors, metadata, paths)
        or cache_item(tensors, metadata, paths)
        or placeholders(tensors, metadata, paths)
    )
    if made_here is not None:
        return [made_here]
    if is_adapter(tensors):
        alphas = [
            read_scalar(header, name)
            for header in headers
            for name in [name for name in header.tensors if name.endswith(".alpha")][:_MAX_ALPHAS]
        ]
        return [describe_adapter(tensors, metadata, paths, [alpha for alpha in alphas if alpha is not None])]
    parts = find_parts(tensors)
    if parts:
        return [describe_part(part, _paths_of(part, files)) for part in parts]
    return [_stranger(tensors, paths)]


def _paths_of(part, files):
    return sorted({files[name] for names in part.sources.values() for name in names})


def _stranger(tensors, paths):
    facts = {"paths": paths, **counted(tensors.values())}
    image = image_vae(tensors)
    if image is not None:
        title = f"2-D image VAE of {image[0]} ({image[1]} channels)"
        problem = f"{paths[0]}: an image VAE knows no time: take Wan2.1_VAE.pth, or Wan2.2_VAE.pth for TI2V-5B"
        return Component("image_vae", title, sizes={"latent_channels": image[1]}, problems=(problem,), **facts)
    name = foreign_model(tensors)
    if name is not None:
        problem = f"{paths[0]}: {name}: this toolkit runs Wan2.1 and Wan2.2 alone"
        return Component("foreign", name, problems=(problem,), **facts)
    some = ", ".join(list(tensors)[:3]) or "nothing"
    problem = f"{paths[0]}: no model that is known here, found {some}"
    return Component("unknown", f"weights of no known model ({len(tensors)} tensors)", problems=(problem,), **facts)
