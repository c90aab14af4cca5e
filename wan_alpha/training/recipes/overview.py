"""Recipes of commands that look at recipes."""

from pydantic import Field

from wan_alpha.training.config import Command


class PresetsRecipe(Command):
    """List the recipes that come with the package, or print one to start an own recipe from."""

    name: str | None = Field(None, description="preset to print; none = list them all")
    print_json: bool = Field(False, description="print JSON instead of the table or the TOML")
