"""Recipe of looking at weight files."""

from pathlib import Path

from pydantic import Field

from wan_alpha.training.config import Command


class InspectRecipe(Command):
    """Say what a weight file or folder is, which commands it can serve, and what is missing; no weight is read."""

    path: Path = Field(
        description="folder or file: Wan weights of any layout, adapters, RGBA VAE, caches, runs, recipes"
    )
    for_command: str | None = Field(
        None, description="a command of this toolkit: exit code 1 if the path alone cannot serve it; none = just look"
    )
    fix: bool = Field(
        False, description="write a missing or wrong model_index.json or config.json; an old one stays as <name>.old"
    )
    print_json: bool = Field(False, description="print JSON instead of the text")
