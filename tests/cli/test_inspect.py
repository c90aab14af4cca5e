"""``wan-alpha inspect``: what it prints, when it fails, what it writes, and that it stays light."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from wan_layouts import write_diffusers, write_original

from wan_alpha.cli.inspect import inspect_weights
from wan_alpha.cli.main import COMMANDS, main
from wan_alpha.training.config import list_presets
from wan_alpha.weights.memory import MODES
from wan_alpha.weights.recognise.serves import _EXTRAS
from wan_alpha.weights.recognise.serves import COMMANDS as SERVED

PRESETS = {
    "cache_1_3b": "cache", "generate_1_3b": "generate", "stage1_merge_only": "train-vae", "tiny_stage2": "train-dit",
    "stage1_rgba_vae": "train-vae", "stage2_dora_1_3b": "train-dit", "validate_1_3b": "validate-vae",
}  # fmt: skip


@pytest.fixture(scope="module")
def wan(tmp_path_factory):
    return write_original(tmp_path_factory.mktemp("wan"))


def inspect(*arguments):
    return main(["inspect", *map(str, arguments)])


def as_json(capsys, *arguments):
    code = inspect(*arguments, "--json")
    return code, json.loads(capsys.readouterr().out)


def test_a_folder_is_described_for_people_and_for_programs(wan, capsys):
    assert inspect(wan) == 0
    text = capsys.readouterr().out
    for line in (
        "original layout",
        "Wan2.1 VAE (16 channels, width 8)",
        "generate: --model.wan",
        "memory of dora: ",
        "refused: model.base_vae: a VAE of 48 latent channels",
    ):
        assert line in text
    assert "still needs --model.rgba_weights: rgba_vae.safetensors" in text
    code, found = as_json(capsys, wan)
    assert code == 0 and found["layout"] == "original" and found["passed"] and found["missing"] == {}
    parts = {one["kind"]: one for one in found["components"]}
    assert parts["dit"]["num_parameters"] > 0 and parts["dit"]["dtypes"].keys() == {"F32"}
    assert found["commands"]["train-dit"]["gives"] == {"model.wan": str(wan)}
    assert found["commands"]["train-dit"]["needs"] == {"cache": "a folder made by `wan-alpha cache`"}
    assert found["memory"].keys() == set(MODES)
    assert all({"gib", "is_measured", "phases"} < one.keys() for one in found["memory"].values())
    assert {pair["verdict"] for pair in found["combinations"]} == {"refused", "fits"}


def test_the_exit_code_says_whether_what_was_asked_for_can_work(wan, tmp_path, capsys):
    image_vae = tmp_path / "image.safetensors"
    save_file({"decoder.conv_in.weight": torch.zeros(8, 4, 3, 3)}, image_vae)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing at all")
    cases = [
        ((wan, "--for", "generate"), 0, "generate: --model.wan"),
        ((wan, "--for", "train-dit"), 0, "train-dit: --model.wan"),
        ((wan / "Wan2.1_VAE.pth", "--for", "train-vae"), 0, "train-vae: --model.base_vae"),
        ((wan / "Wan2.1_VAE.pth", "--for", "train-dit"), 1, "train-dit: cannot: nothing here is for train-dit"),
        ((wan / "diffusion_pytorch_model-00001-of-00002.safetensors", "--for", "generate"), 1,
         "lacks the text encoder: models_t5_umt5-xxl-enc-bf16.pth"),
        ((image_vae, "--for", "train-vae"), 1, "take Wan2.1_VAE.pth"),
        ((wan, "--for", "probe"), 1, "probe reads no weights"),
        ((wan, "--for", "fly"), 2, "--for fly: no such command; choose one of"),
        ((broken,), 2, f"{broken}: not a readable safetensors file"),
        ((tmp_path / "nowhere",), 2, "no such file or folder"),
    ]  # fmt: skip
    for arguments, code, message in cases:
        assert inspect(*arguments) == code, arguments
        captured = capsys.readouterr()
        assert message in captured.out + captured.err, arguments


def test_fix_writes_what_is_missing_and_keeps_what_was_there(tmp_path, capsys):
    folder = write_diffusers(tmp_path, experts=True)
    assert inspect(folder, "--fix") == 0  # what the fixture leaves out: configs of VAE, text encoder, scheduler
    capsys.readouterr()
    (folder / "model_index.json").write_text("{")
    (folder / "transformer" / "config.json").write_text('{"num_attention_heads": 4, "num_layers": 9}')
    assert inspect(folder) == 0
    text = capsys.readouterr().out
    assert "model_index.json: not JSON; --fix writes it" in text and "num_layers is 9, the weights say 2" in text
    assert inspect(folder, "--fix") == 0
    assert "the old one is model_index.json.old" in capsys.readouterr().out
    assert (folder / "model_index.json.old").read_text() == "{"
    assert json.loads((folder / "model_index.json").read_text())["vae"] == ["diffusers", "AutoencoderKLWan"]
    code, found = as_json(capsys, folder)
    assert code == 0 and found["configs"] == []


def test_fix_says_what_it_cannot_write_and_the_exit_code_too(tmp_path, capsys):
    folder = write_diffusers(tmp_path)
    (folder / "transformer" / "config.json").unlink()
    for path in (folder / "tokenizer").iterdir():
        path.unlink()
    assert inspect(folder, "--fix") == 1
    text = capsys.readouterr().out
    assert "wrote" in text and (folder / "vae" / "config.json").is_file()
    assert "config.json: missing; --fix cannot write it: of a width of 48 no shape tells the number of heads" in text
    assert (
        "tokenizer_config.json: missing; --fix cannot write it: a tokenizer is learned, no shape tells it: copy" in text
    )
    assert not (folder / "transformer" / "config.json").exists()
    code, found = as_json(capsys, folder)
    assert code == 0 and {one["reason"] for one in found["configs"]} == {"missing"}


@pytest.mark.parametrize("preset", list_presets())
def test_a_recipe_is_told_with_the_command_that_it_is_for(preset, capsys, tmp_path):
    from importlib.resources import files

    path = files("wan_alpha") / "presets" / f"{preset}.toml"
    code, found = as_json(capsys, path)
    (recipe,) = found["components"]
    assert code == 0 and recipe["kind"] == "recipe" and recipe["details"]["commands"]
    expected = PRESETS.get(preset)
    assert expected is None or expected in recipe["details"]["commands"]


def test_a_recipe_of_no_command_is_refused(tmp_path, capsys):
    path = tmp_path / "recipe.toml"
    path.write_text('output_dir = "x"\nlearning = 3\n')
    assert inspect(path) == 1
    assert "that no command has as a whole" in capsys.readouterr().out


def test_the_commands_that_are_named_exist():
    assert set(SERVED) | set(_EXTRAS) <= set(COMMANDS)
    for name in SERVED:
        recipe_class = COMMANDS[name][0]
        for option in SERVED[name]:
            table, _, leaf = option.rpartition(".")
            owner = recipe_class.model_fields[table].annotation if table else recipe_class
            assert leaf in owner.model_fields, (name, option)


def test_inspecting_imports_no_torch(wan):
    script = (
        "import sys\nfrom wan_alpha.cli.main import main\n"
        f"code = main(['inspect', {str(wan)!r}])\n"
        "print(code, sorted({'torch', 'diffsynth', 'safetensors', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


@pytest.mark.parametrize("experts", [False, True])
def test_experts_are_counted_as_they_are_found(tmp_path, capsys, experts):
    """A folder of two small experts has the family of a model of one; what holds for that one DiT is not said of it."""
    folder = write_diffusers(tmp_path, experts=experts)
    assert main(["inspect", str(folder)]) == 0
    assert ("there is one DiT" in capsys.readouterr().out) == (not experts)
    found = inspect_weights(folder)
    reasons = [pair["reason"] for pair in found.as_dict()["combinations"]]
    assert any("there is one DiT" in reason for reason in reasons) == (not experts)
