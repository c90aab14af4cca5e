"""Recipes of looking at results: evaluate, report, and the page ui."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from wan_alpha.training.config import Command, Device, Recipe


class EvaluateRecipe(Recipe):
    """Measure transparent clips against references, or by themselves: a table, evaluation.json, evaluation.csv."""

    output_dir: Path = Field(Path("wan_alpha_evaluation"), description="folder of the files it writes")
    seed: int = Field(0, ge=0, description="not used: nothing in this is random")
    pred: Path = Field(
        description="what is judged: a file, a folder of frames or of clips, a dataset list (.csv, .jsonl), a folder "
        "that generate wrote"
    )
    reference: Path | None = Field(
        None,
        description="the truth, in any of these forms, clips of the same names; none = judge without it",
    )
    fail_under: tuple[str, ...] = Field(
        (), description="bars, alpha_psnr=30,...: exit code 1 where a figure over all clips is lower"
    )
    fail_over: tuple[str, ...] = Field(
        (), description="bars, alpha_mad=5,...: exit code 1 where a figure over all clips is higher"
    )
    worst_by: str | None = Field(
        None, description="figure that orders the clips, worst first; none = alpha_mad, or flicker without a reference"
    )
    edge_radius: int | None = Field(
        None, ge=1, description="reach of the edge band in pixels; none = 10 at 480 lines, and in proportion"
    )
    lpips: Literal["auto", "off"] = Field(
        "auto", description="LPIPS of the composites; auto = where its weights are at hand"
    )
    lpips_weights: Path | None = Field(
        None, description="torchvision's AlexNet weights for LPIPS; none = torchvision's cache"
    )
    device: Device = Field("auto", description="where to compute")

    @model_validator(mode="after")
    def _bars_are_numbers(self):
        for option in ("fail_under", "fail_over"):
            for text in getattr(self, option):
                name, _, number = text.partition("=")
                try:
                    is_number = float(number) == float(number)
                except ValueError:
                    is_number = False
                if not name or not is_number:
                    raise ValueError(f"{option} = {text!r}: write a figure and a number, as in alpha_psnr=30")
        unused = [name for name in ("edge_radius", "lpips_weights") if not self.has_default(name)]
        if self.reference is None and unused:
            raise ValueError(f"{unused[0]} has no effect without a reference; leave it out or give one")
        if self.lpips == "off" and self.lpips_weights is not None:
            raise ValueError("lpips_weights has no effect with lpips = 'off'; leave one of them out")
        return self


class ReportRecipe(Recipe):
    """Write a page on which people look at runs: clips side by side, figures, curves, recipes. Opens from disk."""

    output_dir: Path = Field(description="folder of the page; index.html there is what to open")
    seed: int = Field(0, ge=0, description="not used: nothing in this is random")
    runs: tuple[Path, ...] = Field(
        min_length=1,
        description="folders that commands wrote (training, generate, evaluate, demo), or transparent media",
    )
    title: str = Field("report", description="heading of the page")
    reference: Path | None = Field(
        None, description="true clip, or folder of true clips by the clips' names, for differences; none = as evaluated"
    )
    max_clips: int = Field(24, ge=1, description="clips shown of each run")
    max_frames: int | None = Field(None, ge=1, description="frames shown of each clip, from the start; none = all")


class UiRecipe(Command):
    """Open a page on this machine to probe, convert, check, generate and report with the mouse. Needs the extra ui."""

    output_dir: Path = Field(Path("wan_alpha_ui"), description="folder that the page's results are written to")
    port: int = Field(7860, ge=0, le=65535, description="port on 127.0.0.1; 0 = any that is free")
    open_browser: bool = Field(False, description="open the page in the browser")
