"""Recipes of work on files: probe, doctor, prepare, convert."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from wan_alpha.training.config import Command, Recipe
from wan_alpha.training.recipes.shared import FormatName, LimitSettings


class ProbeRecipe(Command):
    """Say what a media file holds, whether its alpha survives decoding, and whether it is straight or premultiplied."""

    file: Path = Field(description="video, animation, still or folder of frames")
    matte: Path | None = Field(None, description="alpha video of a pair; none = in the file, or X_alpha.* of X_rgb.*")
    packing: Literal["none", "alpha_right", "alpha_left", "alpha_below", "alpha_above"] = Field(
        "none", description="half of the file's picture that holds alpha, seen from the colour"
    )
    frames: int | None = Field(16, ge=1, description="frames that are decoded, spread over the clip; none = all")
    print_json: bool = Field(False, description="print JSON, with the whole histogram")


class DoctorRecipe(Command):
    """Check every clip of a dataset, say what is wrong, and repair what can be repaired."""

    output_dir: Path = Field(Path("wan_alpha_doctor"), description="folder of doctor.json and contact_sheet.html")
    dataset: Path = Field(description="dataset folder, a manifest (.csv, .jsonl, .json), or a folder of clips")
    fix: Path | None = Field(None, description="new folder for a repaired dataset; originals are only read")
    print_json: bool = Field(False, description="print doctor.json instead of the table")
    ignore: tuple[str, ...] = Field((), description="names of checks whose findings are left out")
    workers: int | None = Field(None, ge=1, description="rows checked at a time; none = one per CPU core")
    sheet_clips: int = Field(200, ge=0, description="clips in the contact sheet at most, those with findings first")
    limits: LimitSettings


class PrepareRecipe(Recipe):
    """Check clips of any kind, in a folder or named by a manifest, and write a dataset with metadata.csv."""

    seed: int = Field(0, ge=0, description="not used: nothing in this is random")
    source_dir: Path = Field(
        description="folder of clips: X_rgb.* + X_alpha.*, fgr/ + pha/, RGBA files or stills; or a manifest"
    )
    skip_bad: bool = Field(False, description="list bad rows and leave them out, instead of stopping at the first")
    link: bool = Field(False, description="hard-link pairs instead of copying them")
    workers: int | None = Field(None, ge=1, description="rows checked at a time; none = one per CPU core")
    caption_column: str | None = Field(
        None,
        description="manifest's column or .json caption's key that holds captions; none = the column prompt, and of "
        ".json captions the first of prompt, caption, text, description",
    )
    source_state: Literal["straight", "premultiplied", "auto"] = Field(
        "straight", description="what the colour of the sources is; auto = judged clip by clip; straight is written"
    )
    packing: Literal["none", "alpha_right", "alpha_left", "alpha_below", "alpha_above"] = Field(
        "none", description="where the matte lies in the frames of opaque videos that have no matte file"
    )
    split_scenes: bool = Field(False, description="make a clip of each scene, cut where the picture changes at once")
    drop_near_duplicates: bool = Field(False, description="leave out and list clips that look like an earlier one")
    limits: LimitSettings


class ConvertRecipe(Command):
    """Write one clip in another format, with its alpha read back, and a manifest beside it."""

    source: Path = Field(description="video, animation, still or folder of frames")
    output: Path = Field(description="file to write, or a folder (no suffix) for numbered PNGs; the suffix says which")
    format: FormatName | None = Field(None, description="format by name; none = what the suffix says, .mp4 needs one")
    matte: Path | None = Field(None, description="alpha video of a pair; none = alpha is in the source")
    packing: Literal["none", "alpha_right", "alpha_left", "alpha_below", "alpha_above"] = Field(
        "none", description="half of the source's picture that holds alpha, seen from the colour"
    )
    source_state: Literal["straight", "premultiplied", "auto"] = Field(
        "straight", description="state of the source's colour; premultiplied is made straight, auto judges the frames"
    )
    matte_range: Literal["full", "limited", "auto"] = Field(
        "auto", description="levels of a matte or packed half: 0-255, 16-235 (expanded), or judged from the frames"
    )
    premultiplied: bool = Field(False, description="store colour multiplied by alpha")
    fps: float | None = Field(
        None, gt=0, description="frames per second; other than the source's, frames are taken by time; none = its own"
    )
    start: int = Field(0, ge=0, description="first frame of the source, counted from 0")
    num_frames: int | None = Field(None, ge=1, description="frames of the source; none = all that follow")
    background: str = Field(
        "checkerboard", description="of a preview: checkerboard, a colour (white, #rrggbb), or a picture or clip"
    )
    prompt: str | None = Field(None, description="for the manifest; none = what the source says of itself")
