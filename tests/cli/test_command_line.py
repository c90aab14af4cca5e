"""The command line: quick help, one message per error, exit codes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import wan_alpha
from wan_alpha.cli import main as cli
from wan_alpha.errors import ConfigError, DataError
from wan_alpha.training.config import dotted_fields

VAE = [
    "train-vae",
    "--output_dir",
    "out",
    "--model.base_vae",
    "vae.pth",
    "--data.base_path",
    "clips",
    "--training.max_steps",
    "5",
]


def run(argv, monkeypatch, result=None):
    """Run a recipe command with its function replaced; returns (exit code, recipe it got)."""
    got = []

    def function(recipe):
        got.append(recipe)
        if isinstance(result, BaseException):
            raise result
        return result

    recipe_class, _, name = cli.RECIPE_COMMANDS[argv[0]]
    module = type(sys)("command_module")
    setattr(module, name, function)
    monkeypatch.setitem(sys.modules, "command_module", module)
    monkeypatch.setitem(cli.RECIPE_COMMANDS, argv[0], (recipe_class, "command_module", name))
    monkeypatch.setattr(cli, "check_torchvision", lambda: None)
    return cli.main(argv), got[0] if got else None


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from wan_alpha.cli.main import build_parser\n"
        "parser = build_parser()\n"
        "parser.format_help()\n"
        "for command in parser._subparsers._group_actions[0].choices.values(): command.format_help()\n"
        "heavy = {'torch', 'numpy', 'diffsynth', 'accelerate', 'transformers', 'pandas'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["demo", "prepare", *cli.RECIPE_COMMANDS])
def test_help_shows_every_option_with_its_default(command, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0
    words = " ".join(capsys.readouterr().out.split())
    recipe_class = cli.RECIPE_COMMANDS[command][0] if command in cli.RECIPE_COMMANDS else None
    for name, field in dotted_fields(recipe_class) if recipe_class else ():
        help_text = words.split(f" --{name} ")[1].split(" --")[0].replace("- ", "-")
        assert field.description.replace("- ", "-") in help_text
        assert "(required)" in help_text if field.is_required() else "(default: " in help_text


def test_options_reach_the_recipe(monkeypatch):
    argv = [*VAE, "--training.learning_rate", "5e-5", "--seed=3", "--data.cache_clips", "--training.batch_size", "2"]
    code, recipe = run(argv, monkeypatch)
    assert code == 0
    assert (recipe.seed, recipe.data.cache_clips) == (3, True)
    assert (recipe.training.learning_rate, recipe.training.batch_size, recipe.training.max_steps) == (5e-5, 2, 5)


def test_a_preset_and_overrides(monkeypatch):
    code, recipe = run(["train-vae", "--config", "tiny_stage1", "--training.max_steps", "7"], monkeypatch)
    assert code == 0 and recipe.training.max_steps == 7 and recipe.data.num_frames == 9


@pytest.mark.parametrize(
    "extra, message",
    [
        (
            ["--training.lerning_rate", "1"],
            "--training.lerning_rate: no such option; did you mean training.learning_rate?",
        ),
        (["--data.height", "270"], "data.height = '270'"),
        (["stray"], "stray: no such option; options start with --"),
    ],
)
def test_wrong_options_give_one_message_and_exit_code_2(extra, message, monkeypatch, capsys):
    code, recipe = run([*VAE, *extra], monkeypatch)
    assert code == 2 and recipe is None
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


@pytest.mark.parametrize(
    "result, code, message",
    [
        (DataError("row 3 (x.mp4): damaged"), 2, "wan-alpha train-vae: row 3 (x.mp4): damaged"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (type("Report", (), {"passed": False})(), 1, ""),
        (type("Report", (), {"passed": True})(), 0, ""),
        ([], 0, ""),
    ],
)
def test_exit_codes(result, code, message, monkeypatch, capsys):
    assert run(VAE, monkeypatch, result)[0] == code
    assert message in capsys.readouterr().err


def test_programming_errors_are_not_swallowed(monkeypatch):
    with pytest.raises(ZeroDivisionError):
        run(VAE, monkeypatch, ZeroDivisionError())


@pytest.mark.parametrize(
    "error", [ImportError("No module named 'torchvision'"), RuntimeError("operator torchvision::nms does not exist")]
)
def test_broken_torchvision_is_one_sentence(error, monkeypatch):
    def fail(name):
        raise error

    monkeypatch.setattr(cli, "import_module", fail)
    with pytest.raises(ConfigError, match="torchvision cannot be imported beside this torch.*same place"):
        cli.check_torchvision()


def test_prepare_writes_a_dataset(tmp_path, capsys, monkeypatch):
    source = tmp_path / "stills"
    source.mkdir()
    shutil.copy(Path(wan_alpha.__file__).parent / "assets" / "media" / "lemur_cutout.png", source / "lemur.png")
    (source / "broken.png").write_bytes(b"nothing")
    monkeypatch.setattr(cli, "check_torchvision", lambda: None)
    assert cli.main(["prepare", str(source), str(tmp_path / "stopped")]) == 2
    assert "broken.png" in capsys.readouterr().err
    assert cli.main(["prepare", str(source), str(tmp_path / "out"), "--skip-bad"]) == 0
    assert (tmp_path / "out" / "metadata.csv").is_file()
    printed = capsys.readouterr().out
    assert "broken.png" in printed and "1 clips, 1 left out" in printed


def test_unknown_arguments_of_plain_commands(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["demo", "--out", str(tmp_path), "--fast"])
    assert caught.value.code == 2 and "--fast" in capsys.readouterr().err
