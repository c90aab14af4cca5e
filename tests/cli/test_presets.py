"""`wan-alpha presets`: each preset with its command, and one to start from."""

import json
import shlex
import tomllib
from pathlib import Path

import pytest

from wan_alpha.cli import main as cli
from wan_alpha.training.config import list_presets, load_recipe, preset_file

COMMAND_OF = {
    "cache": "cache", "generate": "generate", "stage1": "train-vae", "stage2": "train-dit", "validate": "validate-vae",
}  # fmt: skip


def test_every_preset_is_listed_with_its_command(capsys):
    assert cli.main(["presets", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list_presets()
    for row in rows:
        (command,) = {command for part, command in COMMAND_OF.items() if part in row["name"].split("_")}
        assert row["command"] == command
        assert len(row["about"]) > 20, row
    assert cli.main(["presets"]) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in list_presets())


def test_a_printed_preset_is_a_recipe(capsys, tmp_path):
    assert cli.main(["presets", "tiny_stage1"]) == 0
    text = capsys.readouterr().out
    (tmp_path / "mine.toml").write_text(text)
    recipe_class = cli.COMMANDS["train-vae"][0]
    assert load_recipe(recipe_class, tmp_path / "mine.toml") == load_recipe(recipe_class, "tiny_stage1")
    assert cli.main(["presets", "tiny_stage1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == tomllib.loads(text)


def commands_in_head(name):
    """Arguments of the `wan-alpha` commands that a preset's comments give; a line that goes on is indented."""
    lines = [line[1:] for line in preset_file(name).read_text().splitlines() if line.startswith("#")]
    joined = "\n".join(lines).replace("\n   ", " ")
    return [shlex.split(line)[1:] for line in joined.splitlines() if line.startswith(" wan-alpha ")]


def test_an_rgba_vae_that_a_preset_takes_is_made_by_one():
    contents = {name: tomllib.loads(preset_file(name).read_text()) for name in list_presets()}
    made = {content["output_dir"] for content in contents.values()}
    for name, content in contents.items():
        if (path := content["model"].get("rgba_weights")) is None or str(Path(path).parent) in made:
            continue
        (command, *options) = next(command for command in commands_in_head(name) if command[0] == "train-vae")
        given = dict(zip((option.removeprefix("--") for option in options[::2]), options[1::2], strict=True))
        recipe = load_recipe(cli.COMMANDS[command][0], given.pop("config"), given)
        assert recipe.output_dir == Path(path).parent and str(recipe.model.base_vae) == content["model"]["base_vae"]


@pytest.mark.parametrize("name", ["stage_one", "../stage1_rgba_vae"])
def test_an_unknown_one_is_refused(name, capsys):
    assert cli.main(["presets", name]) == 2
    assert f"{name}: no such preset; there are " in capsys.readouterr().err
