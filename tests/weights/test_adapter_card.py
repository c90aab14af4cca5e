"""What an adapter says of where it is from: ModelSpec's fields, read back, kept through every dialect."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import save_file

from wan_alpha.weights.adapter_card import AdapterCard, own_metadata, read_adapter_card, read_card, recipe_sha256
from wan_alpha.weights.adapter_dialects import write_dialect
from wan_alpha.weights.adapter_keys import DIALECTS
from wan_alpha.weights.adapters import read_adapter, write_adapter
from wan_alpha.weights.io import read_metadata, save_safetensors

TENSORS = {
    "blocks.0.self_attn.q.lora_A.default.weight": torch.randn(4, 1536),
    "blocks.0.self_attn.q.lora_B.default.weight": torch.randn(1536, 4).bfloat16(),
}
CARD = AdapterCard(
    title="A red ball", architecture="wan-1.3b/lora", date="2026-01-02T03:04:05Z", resolution="832x480",
    base_sha256="ab" * 32, recipe={"seed": 1, "output_dir": "here"}, trigger_words=("redball", "glass look"),
    tokens=("<ball>",),
)  # fmt: skip


def content_of(path):
    """The bytes behind the header."""
    content = path.read_bytes()
    return content[8 + int.from_bytes(content[:8], "little") :]


def write(path):
    settings = {"kind": "lora", "rank": 4, "alpha": 8, "targets": ("q",)}
    metadata = {"format": "wan_alpha.adapter", "format_version": "1", **settings}
    save_safetensors(TENSORS, path, metadata | own_metadata(CARD, TENSORS, "lora"))
    return path


def test_modelspecs_fields_are_there(tmp_path):
    path = write(tmp_path / "a.safetensors")
    spec = {key: value for key, value in read_metadata(path).items() if key.startswith("modelspec.")}
    assert spec == {
        "modelspec.sai_model_spec": "1.0.1", "modelspec.architecture": "wan-1.3b/lora",
        "modelspec.implementation": "https://github.com/Wan-Video/Wan2.1", "modelspec.title": "A red ball",
        "modelspec.date": "2026-01-02T03:04:05Z", "modelspec.resolution": "832x480",
        "modelspec.trigger_phrase": "redball, glass look",
        "modelspec.hash_sha256": "0x" + hashlib.sha256(content_of(path)).hexdigest(),
    }  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_card_goes_through_every_dialect(dialect, tmp_path):
    first = write(tmp_path / "a.safetensors")
    written = write_dialect(read_adapter(first), tmp_path / "to", dialect)[0]
    card = read_adapter_card(written)
    assert card.hash_sha256 == hashlib.sha256(content_of(written)).hexdigest()
    expected = vars(CARD) | {"hash_sha256": card.hash_sha256, "recipe_sha256": recipe_sha256(CARD.recipe)}
    assert vars(card) == expected
    assert read_metadata(written)["modelspec.implementation"].startswith(
        "diffusers" if dialect == "diffusers" else "https"
    )


def test_the_same_conversion_is_the_same_bytes(tmp_path):
    first = write(tmp_path / "a.safetensors")
    files = [write_dialect(read_adapter(first), tmp_path / name, "diffusers")[0] for name in ("x", "y")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_where_a_recipe_writes_to_is_not_part_of_its_hash():
    assert recipe_sha256({"seed": 1, "output_dir": "a"}) == recipe_sha256({"output_dir": "b", "seed": 1})
    assert recipe_sha256({"seed": 1}) != recipe_sha256({"seed": 2})


def test_other_programs_metadata_are_read_as_far_as_they_go(tmp_path):
    save_file(
        TENSORS, tmp_path / "x.safetensors", {"modelspec.trigger_phrase": "redball, glass", "modelspec.title": "X"}
    )
    card = read_adapter_card(tmp_path / "x.safetensors")
    assert (card.title, card.trigger_words, card.recipe, card.base_sha256) == ("X", ("redball", "glass"), None, None)
    assert read_card({"trigger_words": "not json", "recipe": "[1]"}) == AdapterCard()


def test_a_stale_hash_of_another_program_is_not_kept(tmp_path):
    metadata = {"ss_tag_frequency": "{}", "sshs_model_hash": "ab", "modelspec.hash_sha256": "0xab"}
    save_file(TENSORS, tmp_path / "x.safetensors", metadata)
    written = write_dialect(read_adapter(tmp_path / "x.safetensors"), tmp_path / "y.safetensors", "comfyui")[0]
    kept = read_metadata(written)
    assert kept["ss_tag_frequency"] == "{}" and "sshs_model_hash" not in kept
    assert kept["modelspec.hash_sha256"] == "0x" + hashlib.sha256(content_of(written)).hexdigest()
    assert kept["modelspec.architecture"] == "wan-1.3b/lora", "told by the tensors' width"


def test_an_adapter_written_without_a_card_has_the_fields_that_must_be(tmp_path):
    path = tmp_path / "mine.safetensors"
    write_adapter(TENSORS, path, kind="lora", rank=4, alpha=4, targets=("q",), base_sha256="cd", recipe={"seed": 2})
    metadata = read_metadata(path)
    assert metadata["modelspec.title"] == "mine" and metadata["base_sha256"] == "cd"
    assert json.loads(metadata["recipe"]) == {"seed": 2} and metadata["recipe_sha256"] == recipe_sha256({"seed": 2})
