"""An adapter or a learned word for another model is refused at its load, by every command, before weights are read."""

import pytest
import torch
from adapter_files import WRITERS, make_layers, save
from miniature_wan import make_dit, write_wan_folder
from other_programs import read
from safetensors.torch import save_file

from wan_alpha.data.digests import Digests
from wan_alpha.errors import CheckpointError
from wan_alpha.inference.expert_adapters import notes_on_bases
from wan_alpha.inference.generate import generate
from wan_alpha.models.adapters import add_adapter, load_adapter
from wan_alpha.models.load import load_wan
from wan_alpha.models.merge import merge_files
from wan_alpha.training.config import load_recipe
from wan_alpha.training.recipes import GenerateRecipe
from wan_alpha.weights.io import rounded_sha256
from wan_alpha.weights.wan_layout import find_wan_files


@pytest.fixture(scope="module")
def wan_folder(tmp_path_factory, reference_dir):
    return write_wan_folder(tmp_path_factory.mktemp("wan"), reference_dir / "base_vae.safetensors")


@pytest.fixture
def make_recipe(wan_folder, reference_dir, tmp_path):
    def make(**changes):
        options = {
            "output_dir": tmp_path / "out", "prompt": "a red <thing>", "model.wan": str(wan_folder), "device": "cpu",
            "model.base_vae": wan_folder / "Wan2.1_VAE.pth", "num_frames": 1, "height": 32, "width": 32,
            "model.rgba_weights": reference_dir / "rgba_vae_checkpoint.bin", "num_steps": 1, "guidance": 1.0,
        }  # fmt: skip
        return load_recipe(GenerateRecipe, None, options | changes)

    return make


def wider(tensors):
    """Of a model of 56 instead of 48."""
    for name, tensor in list(tensors.items()):
        axis = 1 if ".lora_A" in name and "ffn.2" not in name else 0
        if ".lora_" in name and tensor.shape[axis] == 48:
            tensors[name] = torch.ones(*(56 if place == axis else size for place, size in enumerate(tensor.shape)))


def deeper(tensors):
    for name in [name for name in tensors if name.startswith("blocks.1.")]:
        tensors[name.replace("blocks.1.", "blocks.29.")] = tensors.pop(name)


MISFITS = {
    "another width": (wider, r"expected shape \(48, 48\).*found \(56, 56\)"),
    "more blocks": (deeper, "found blocks.29.*(which it has not|which the model does not adapt)"),
}


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("case", MISFITS)
def test_an_adapter_for_another_base_is_refused_by_every_command(case, kind, make_recipe, wan_folder, tmp_path):
    change, message = MISFITS[case]
    base = make_dit().state_dict()
    tensors, metadata = read(WRITERS["wan-alpha"](make_layers(base, kind, "alpha_is_rank"), tmp_path, kind))
    change(tensors)
    path = save(tensors, tmp_path / "misfit.safetensors", metadata)
    for option in ("model.adapter", "model.distillation_lora"):
        with pytest.raises(CheckpointError, match=message) as refused, pytest.MonkeyPatch.context() as patch:
            patch.setattr("wan_alpha.models.load.fill_module", lambda *_: pytest.fail("weights were loaded"))
            generate(make_recipe(**{option: path}), progress=False)
        assert f"`wan-alpha inspect {path}` says which it fits" in str(refused.value)
    with pytest.raises(CheckpointError, match=message) as refused:
        merge_files(wan_folder, path, tmp_path / "merged.safetensors")
    assert str(path) in str(refused.value) and not (tmp_path / "merged.safetensors").exists()
    dit = make_dit()
    targets = sorted({name.partition(".lora_")[0].split(".", 2)[-1] for name in tensors})
    add_adapter(dit, kind, 4, 4, tuple(targets))
    with pytest.raises(CheckpointError, match=f"misfit.safetensors: .*inspect {path}` says which it fits"):
        load_adapter(dit, path)


def test_an_adapter_of_other_weights_of_the_same_shape_is_told_and_used(make_recipe, wan_folder, tmp_path, capsys):
    """A base that was fine-tuned or rounded otherwise is nobody's mistake: a note, not an error."""
    base = make_dit().state_dict()
    tensors, metadata = read(WRITERS["wan-alpha"](make_layers(base, "lora", "alpha_is_rank"), tmp_path, "lora"))
    paths = {
        name: save(tensors, tmp_path / f"{name}.safetensors", metadata | {"base_sha256": sha256})
        for name, sha256 in (("same", rounded_sha256(base)), ("other", "ab" * 32))
    }
    (clip,) = generate(make_recipe(**{"model.adapter": paths["other"]}), progress=False)
    assert clip.coverage is not None
    assert f"note: {paths['other']}: trained on other weights than {wan_folder}" in capsys.readouterr().err
    pipe, files = load_wan(str(wan_folder), components=("dit",)), find_wan_files(str(wan_folder))
    assert (
        list(notes_on_bases(pipe, make_recipe(**{"model.adapter": paths["same"]}).model, files, Digests(tmp_path)))
        == []
    )
    # The model is hashed once.
    remembered = Digests(make_recipe().output_dir)
    (note,) = notes_on_bases(
        WithoutDiT(pipe), make_recipe(**{"model.adapter": paths["other"]}).model, files, remembered
    )
    assert "it fits, and may look different" in note


class WithoutDiT:
    """A pipe whose DiT must not be asked again."""

    def __init__(self, pipe):
        self.dit, self.dit2 = None, pipe.dit2


def test_a_learned_word_of_another_text_encoder_is_refused_before_that_is_loaded(make_recipe, tmp_path, monkeypatch):
    path = tmp_path / "thing.safetensors"
    save_file({"<thing>": torch.ones(2, 4096)}, path)
    monkeypatch.setattr("wan_alpha.models.load.fill_module", lambda *_: pytest.fail("weights were loaded"))
    with pytest.raises(CheckpointError, match="thing.safetensors: <thing> has vectors of 4096 .* have 24; .*learn the"):
        generate(make_recipe(**{"model.embeddings": str(path)}), progress=False)
