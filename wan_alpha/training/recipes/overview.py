"""Recipes of commands that look at recipes and at how runs went."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from wan_alpha.training.config import Command


class PresetsRecipe(Command):
    """List the recipes that come with the package, or print one to start an own recipe from."""

    name: str | None = Field(None, description="preset to print; none = list them all")
    print_json: bool = Field(False, description="print JSON instead of the table or the TOML")


class PerfRecipe(Command):
    """Compare the performance records of two runs: what became slower or hungrier beyond noise; exit code 1 if any."""

    action: Literal["compare"] = Field(description="what to do with them: compare")
    before: Path = Field(description="A: a run's folder, or its performance.json")
    after: Path = Field(description="B: the one that is judged")
    bar: float = Field(0.1, ge=0, description="share by which a stage's median time may grow")
    few_bar: float = Field(0.5, ge=0, description="that share where a stage ran fewer than five times")
    memory_bar: float = Field(0.05, ge=0, description="share by which a stage's memory may grow")
    print_json: bool = Field(False, description="print JSON instead of the table")
