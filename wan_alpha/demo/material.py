"""The demo's footage: drawn RGBA clips with captions, a real still, and whatever clips the user adds."""

import shutil
from importlib.resources import files
from pathlib import Path

import torch

from wan_alpha.alpha.ranges import model_to_uint8, unit_to_uint8
from wan_alpha.data.manifest import write_manifest
from wan_alpha.data.synthetic import draw_shape_clip, random_shape_clip
from wan_alpha.errors import ConfigError
from wan_alpha.media.write import LosslessWriter

NUM_FRAMES = 9
SIZE = 64
FPS = 8.0
HELD_OUT_PREFIX = "held_out"
LEMUR_CAPTION = (
    "The background is transparent. Photograph, close-up. A ring-tailed lemur looks into the camera, which pans slowly."
)
# Pretraining drew its clips from other seeds; nothing below was seen by the base model.
FIRST_SEED = 900_000_000
MARKER = ".made_by_wan_alpha_demo"


def write_material(folder, num_clips, num_held_out, seed=0, source=None):
    """Write RGBA sources as a user would have them: one file a clip, its caption in a text file beside it.

    Args:
        folder: target; num_clips, num_held_out: drawn clips to train on and to keep apart.
        seed: of the drawing; source: folder of the user's own RGBA clips to train on too, or None.

    Raises:
        ConfigError: the folder is there and was not made by the demo.
    """
    _empty_own_folder(folder)
    for prefix, count in (("train", num_clips), (HELD_OUT_PREFIX, num_held_out)):
        offset = FIRST_SEED + 1_000_000 * seed + (500_000 if prefix == HELD_OUT_PREFIX else 0)
        for index in range(count):
            _write_clip(folder / f"{prefix}_{index:03d}.mkv", offset + index)
    still = folder / "lemur.png"
    shutil.copyfile(str(files("wan_alpha") / "assets" / "media" / "lemur_cutout.png"), still)
    still.with_suffix(".txt").write_text(LEMUR_CAPTION + "\n", encoding="utf-8")
    if source is not None:
        shutil.copytree(source, folder / "yours", dirs_exist_ok=True)


def _empty_own_folder(folder):
    # Clips of an earlier run with other sizes must not mix with these; what a user keeps there is not ours to delete.
    if folder.exists():
        if not (folder / MARKER).is_file():
            raise ConfigError(f"{folder} exists and is not the demo's; choose another output folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARKER).touch()


def _write_clip(path, seed):
    generator = torch.Generator().manual_seed(seed)
    clip = random_shape_clip(generator)
    rgb, alpha = draw_shape_clip(clip, NUM_FRAMES, SIZE, SIZE, generator)
    frames = torch.cat([model_to_uint8(rgb), unit_to_uint8(alpha)]).permute(1, 2, 3, 0).numpy()
    with LosslessWriter(path, fps=FPS) as writer:
        writer.write(frames)
    path.with_suffix(".txt").write_text(clip.caption + "\n", encoding="utf-8")


def split_manifest(records, folder):
    """Split a prepared dataset's records into ``train.csv`` and ``held_out.csv``; returns both paths."""
    held_out = [record for record in records if HELD_OUT_PREFIX in Path(record["video_fgr"]).name]
    training = [record for record in records if record not in held_out]
    paths = folder / "train.csv", folder / "held_out.csv"
    for path, part in zip(paths, (training, held_out), strict=True):
        write_manifest(path, part)
    return paths
