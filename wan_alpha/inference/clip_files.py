"""The files of one generated clip, written while it is decoded, and what they were made from."""

from dataclasses import dataclass
from pathlib import Path

import torch

from wan_alpha.alpha.ranges import rgba_frames
from wan_alpha.data.digests import Digests
from wan_alpha.media.backgrounds import parse_background
from wan_alpha.media.formats import find_format
from wan_alpha.media.outputs import ClipOutputs, WrittenOutput
from wan_alpha.metrics.coverage import Coverage, coverage
from wan_alpha.training.progress import StepProgress
from wan_alpha.weights.wan_layout import DITS, find_wan_files, vae_file


@dataclass(frozen=True)
class WrittenClip:
    """What came of writing: how much of the clip is clear, semi-transparent and opaque, and its outputs."""

    num_frames: int
    coverage: Coverage
    outputs: tuple[WrittenOutput, ...]


def write_clip(
    chunks, folder, fps, formats=("png", "preview", "matte", "webm"), *, premultiplied=False,
    background="checkerboard", num_frames=None, record=None, callback=None,
):  # fmt: skip
    """Write a clip chunk by chunk in every format asked for, then read back those that carry alpha.

    Args:
        chunks: iterable of (rgb, alpha) as ``RGBAlphaVAE.iterate_decode`` yields them, one sample.
        folder: existing folder; fps: frames per second; formats: names of media/formats.py.
        premultiplied: store colour multiplied by alpha where a format can be so.
        background: of a preview, as ``parse_background`` takes it.
        num_frames: how many will come, where known.
        record: prompt, seed, models and settings as JSON values, put into the formats that take them.
        callback: called as callback(frames written) after every chunk.

    Raises:
        ConfigError: no such format or background, or options without effect.
        DataError: a file cannot be written, or lost its alpha.
    """
    chosen = [find_format(name) for name in formats]
    outputs = ClipOutputs(
        [(Path(folder) / one.clip_name, one) for one in chosen], fps, premultiplied=premultiplied,
        background=parse_background(background), num_frames=num_frames, record=record,
    )  # fmt: skip
    depth, written, shares = max(one.depth for one in chosen), 0, torch.zeros(3, dtype=torch.float64)
    with outputs:
        for rgb, alpha in chunks:
            frames = rgba_frames(rgb, alpha, depth)
            outputs.write(frames)
            written += len(frames)
            top = 255 if depth == 8 else 65535
            found = coverage(torch.from_numpy(frames[..., 3].astype("float32")) / top)
            shares += torch.tensor([found.clear, found.semi_transparent, found.opaque]).double() * len(frames)
            if callback is not None:
                callback(written)
    verified = outputs.verify(StepProgress("verifying", len(chosen), enabled=False, unit="files").update)
    return WrittenClip(written, Coverage(*(shares / max(written, 1)).tolist()), tuple(verified))


def hash_models(model, digests: Digests):
    """{part: {"path", "sha256"}} of every weight file that a GenerateModel names; what was hashed before is known.

    Raises:
        CheckpointError: a file is missing.
    """
    files = find_wan_files(model.wan, parts=(*DITS, "text_encoder"))
    parts = {"text_encoder": files.text_encoder, "dit_low_noise": files.dit_low_noise, "dit": files.dit}
    names = (
        "base_vae",
        "rgba_weights",
        "decoder_lora",
        "adapter",
        "adapter_low_noise",
        "distillation_lora",
        "distillation_lora_low_noise",
    )
    parts |= {name: [getattr(model, name)] for name in names} | {"embeddings": list(model.embeddings)}
    parts["base_vae"] = [vae_file(model.base_vae)]
    hashed = {}
    for part, paths in parts.items():
        for number, path in enumerate(path for path in paths or () if path is not None):
            key = part if len(paths) == 1 else f"{part}.{number}"
            hashed[key] = {"path": str(path), "sha256": digests.file(path)}
    return hashed
