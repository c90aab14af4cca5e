"""The command line: quick help, one message per error, exit codes."""

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import wan_alpha
from wan_alpha.cli import guard
from wan_alpha.cli import main as cli
from wan_alpha.errors import ConfigError, DataError, RunStopped
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

    recipe_class, _, name = cli.COMMANDS[argv[0]]
    module = type(sys)("command_module")
    setattr(module, name, function)
    monkeypatch.setitem(sys.modules, "command_module", module)
    monkeypatch.setitem(cli.COMMANDS, argv[0], (recipe_class, "command_module", name))
    monkeypatch.setattr(guard, "check_torchvision", lambda: None)
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


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_shows_every_option_with_its_default(command, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0
    words = " ".join(capsys.readouterr().out.split())
    for name, field in dotted_fields(cli.COMMANDS[command][0]):
        help_text = words.split(f" --{name} ")[1]
        for alias in (", --out PATH", ", --json BOOL", ", --open BOOL", ", --for TEXT"):
            help_text = help_text.replace(alias, "")
        help_text = help_text.split(" --")[0].replace("- ", "-")
        assert field.description.replace("- ", "-") in help_text
        assert "(required)" in help_text if field.is_required() else "(default: " in help_text


def test_options_reach_the_recipe(monkeypatch):
    argv = [*VAE, "--training.learning_rate", "5e-5", "--seed=3", "--data.cache_clips", "--training.batch_size", "2"]
    code, recipe = run(argv, monkeypatch)
    assert code == 0
    assert (recipe.seed, recipe.data.cache_clips) == (3, True)
    assert (recipe.training.learning_rate, recipe.training.batch_size, recipe.training.max_steps) == (5e-5, 2, 5)


@pytest.mark.parametrize(
    "argv, expected",
    [
        (["demo"], {"output_dir": Path("wan_alpha_demo"), "num_held_out": 8, "source": None}),
        (["demo", "--out", "here", "--num-clips", "2"], {"output_dir": Path("here"), "num_clips": 2}),
        (["demo", "--output_dir=here", "--seed", "3"], {"output_dir": Path("here"), "seed": 3}),
        (["prepare", "a", "b"], {"source_dir": Path("a"), "output_dir": Path("b"), "skip_bad": False, "link": False}),
        (["prepare", "--link", "a", "b", "--skip-bad"], {"source_dir": Path("a"), "skip_bad": True, "link": True}),
        (["prepare", "--skip_bad", "no", "--source-dir", "a", "--output_dir", "b"], {"skip_bad": False}),
        (["prepare", "--link=false", "a", "b", "--workers", "3"], {"link": False, "workers": 3}),
        (["report", "a", "b", "--out", "c"], {"runs": (Path("a"), Path("b")), "output_dir": Path("c")}),
        (["report", "--out", "c", "--max-frames=9", "a"], {"runs": (Path("a"),), "max_frames": 9}),
    ],
)
def test_demo_and_prepare_are_recipes_too(monkeypatch, argv, expected):
    code, recipe = run(argv, monkeypatch)
    assert code == 0
    assert {name: getattr(recipe, name) for name in expected} == expected


def test_a_file_may_hold_what_prepare_needs(monkeypatch, tmp_path):
    (tmp_path / "prepare.toml").write_text('source_dir = "a"\noutput_dir = "b"\nlink = true\n')
    code, recipe = run(["prepare", "--config", str(tmp_path / "prepare.toml"), "--output_dir", "c"], monkeypatch)
    assert code == 0 and (recipe.source_dir, recipe.output_dir, recipe.link) == (Path("a"), Path("c"), True)


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
        (RunStopped("out: stopped by SIGTERM at step 3 of 9"), 75, "wan-alpha train-vae: out: stopped by SIGTERM"),
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

    monkeypatch.setattr(guard, "import_module", fail)
    with pytest.raises(ConfigError, match="torchvision cannot be imported beside this torch.*same place"):
        guard.check_torchvision()


def test_prepare_writes_a_dataset(tmp_path, capsys, monkeypatch):
    source = tmp_path / "stills"
    source.mkdir()
    shutil.copy(Path(wan_alpha.__file__).parent / "assets" / "media" / "lemur_cutout.png", source / "lemur.png")
    (source / "broken.png").write_bytes(b"nothing")
    monkeypatch.setattr(guard, "check_torchvision", lambda: None)
    assert cli.main(["prepare", str(source), str(tmp_path / "stopped")]) == 2
    assert "broken.png" in capsys.readouterr().err
    assert cli.main(["prepare", str(source), str(tmp_path / "out"), "--skip-bad"]) == 0
    assert (tmp_path / "out" / "metadata.csv").is_file()
    printed = capsys.readouterr().out
    assert "broken.png" in printed and "1 clips, 1 left out" in printed


@pytest.mark.parametrize(
    "argv, message",
    [
        (["demo", "--fast"], "wan-alpha demo: --fast: no such option; options: output_dir"),
        (["demo", "--source", "nowhere"], "source nowhere: no such folder"),
        (
            ["probe", "-odd.webm"],
            "-odd.webm: no such option; options start with --; a file whose name begins with - is given as ./-odd.webm",
        ),
        (["probe", "http://a.b/c.webm"], "probe: http://a.b/c.webm: no such file; addresses and protocols are not"),
        (["doctor", "nowhere"], "wan-alpha doctor: nowhere: no such folder or manifest"),
        (["prepare", "nowhere", "out"], "wan-alpha prepare: nowhere: no such folder or manifest"),
        (["prepare", "only_one"], "wan-alpha prepare: recipe: 1 problem(s)\n  output_dir: missing"),
        (["report", "--out", "page"], "wan-alpha report: recipe: 1 problem(s)\n  runs: missing"),
        (["report", "nowhere", "--out", "page"], "wan-alpha report: nowhere: no such folder or file"),
    ],
)
def test_wrong_arguments_of_demo_and_prepare(argv, message, capsys):
    assert cli.main(argv) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "command, its, others",
    [
        ("train-vae", {"stage1_rgba_vae", "tiny_stage1"}, {"stage2_dora_1_3b", "tiny_generate"}),
        ("generate", {"generate_1_3b", "tiny_generate"}, {"stage1_rgba_vae", "tiny_stage2"}),
        ("probe", set(), {"generate_1_3b", "tiny_stage1"}),
    ],
)
def test_help_names_the_presets_that_the_command_takes(command, its, others, capsys):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in its) and not any(name in printed for name in others)


SCRIPTS = {
    "examples/train.py": ["--rgba_mode", "--dataset_base_path", "d", "--model_paths", "[]", "--base_vae_path", "v",
                          "--feature_merge_checkpoint", "f", "--output_path"],
    "examples/train_feature_merge.py": ["--dataset_base_path", "d", "--base_vae_path", "v", "--vae_lora_path", "l",
                                        "--perceptual", "none", "--output_path"],
    "examples/validate_feature_merge.py": ["--base_vae_path", "v", "--feature_merge_checkpoint", "f",
                                           "--test_rgb_video", "r", "--output_prefix"],
    "examples/inference_rgba.py": ["--wan", "w", "--base_vae_path", "v", "--vae_lora_path", "l", "--prompt", "a cat",
                                   "--output_path"],
    "data_tools/prepare_rgba_dataset.py": ["source"],
}  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_check_torchvision_as_the_commands_do(script, tmp_path, monkeypatch, capsys):
    def fail(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(guard, "import_module", fail)
    main = runpy.run_path(str(Path(__file__).parents[2] / script))["main"]
    assert main([*SCRIPTS[script], str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "torchvision cannot be imported beside this torch" in error and len(error.splitlines()) == 1
