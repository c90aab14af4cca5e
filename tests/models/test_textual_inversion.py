"""Placeholders: what they begin as, what they change, what is refused, and that a file brings them back."""

import pytest
import torch
from miniature_wan import write_wan_folder
from safetensors.torch import save_file

from wan_alpha.errors import CheckpointError, ConfigError
from wan_alpha.models.textual_inversion import add_placeholders, learned_placeholders, start_placeholders
from wan_alpha.models.wan import encode_prompts, encode_prompts_with_gradient, load_wan
from wan_alpha.weights.adapter_card import AdapterCard, read_adapter_card
from wan_alpha.weights.io import save_safetensors
from wan_alpha.weights.textual_inversion import Placeholders, placeholder_metadata, read_placeholders


@pytest.fixture(scope="module")
def wan_folder(tmp_path_factory):
    return write_wan_folder(tmp_path_factory.mktemp("wan"))


@pytest.fixture
def pipe(wan_folder):
    return load_wan(str(wan_folder), components=("text_encoder", "tokenizer"))


def test_one_vector_begins_as_its_initializer(pipe):
    before = encode_prompts(pipe, ["a red ball"])
    start_placeholders(pipe, {"<thing>": "ball"})
    torch.testing.assert_close(encode_prompts(pipe, ["a red <thing>"]), before)
    torch.testing.assert_close(encode_prompts(pipe, ["a red ball"]), before, rtol=0, atol=0)


def test_several_vectors_begin_as_the_pieces_of_several_words(pipe):
    before = encode_prompts(pipe, ["a blue ball ball"])
    start_placeholders(pipe, {"<thing>": "blue ball"}, num_vectors=3)
    torch.testing.assert_close(encode_prompts(pipe, ["a <thing>"]), before)
    mean = learned_placeholders(start_and_return(pipe, {"<mean>": "blue ball"}))["<mean>"]
    table = pipe.text_encoder.token_embedding.table.weight
    torch.testing.assert_close(mean, table[[5, 6]].mean(0, keepdim=True))


def start_and_return(pipe, initializers):
    start_placeholders(pipe, initializers)
    return pipe


def test_a_placeholder_within_another_is_told_apart(pipe):
    start_placeholders(pipe, {"<a>": "red", "<a>_big": "blue"}, num_vectors=1)
    ids = pipe.tokenizer(["<a>_big <a>"])[0].tolist()
    first, second = pipe.tokenizer.tokenizer.convert_tokens_to_ids(["<a>_big", "<a>"])
    assert [token for token in ids if token in (first, second)] == [first, second]


def test_only_the_vectors_learn(pipe):
    embedding = start_placeholders(pipe, {"<thing>": "ball"}, num_vectors=2)
    pipe.text_encoder.requires_grad_(False)
    embedding.vectors.requires_grad_(True)
    context = encode_prompts_with_gradient(pipe, ["a <thing>", "a red ball"])
    probe = torch.randn(context.shape, generator=torch.Generator().manual_seed(1))
    (context * probe).sum().backward()
    trained = [name for name, parameter in pipe.text_encoder.named_parameters() if parameter.grad is not None]
    assert trained == ["token_embedding.vectors.0"]
    gradient = embedding.vectors[0].grad
    assert (gradient.norm(dim=1) > 0).all()

    vector, step = embedding.vectors[0], 1e-3
    assert (vector.square().mean() - 1).abs() < 1e-5  # in units of its own size
    direction = torch.randn(vector.shape, generator=torch.Generator().manual_seed(0))
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            vector += sign * step * direction
            values.append((encode_prompts(pipe, ["a <thing>", "a red ball"]) * probe).double().sum())
            vector -= sign * step * direction
    torch.testing.assert_close(
        float(values[0] - values[1]) / (2 * step), float((gradient * direction).sum()), rtol=2e-2, atol=1e-3
    )


def test_a_file_brings_it_back(pipe, wan_folder, tmp_path):
    start_placeholders(pipe, {"<thing>": "ball"}, num_vectors=2)
    with torch.no_grad():
        pipe.text_encoder.token_embedding.vectors[0].add_(0.5)
    expected = encode_prompts(pipe, ["a red <thing>"])
    learned = learned_placeholders(pipe)
    metadata = placeholder_metadata(learned, {"<thing>": "ball"}, AdapterCard(title="A thing", base_sha256="ab" * 32))
    save_safetensors(learned, tmp_path / "e.safetensors", metadata)

    again = load_wan(str(wan_folder), components=("text_encoder", "tokenizer"))
    found = read_placeholders(tmp_path / "e.safetensors")
    assert found.metadata["format"] == "wan_alpha.textual_inversion"
    card = read_adapter_card(tmp_path / "e.safetensors")
    assert (card.title, card.architecture, card.tokens) == ("A thing", "umt5-24/textual-inversion", ("<thing>",))
    assert card.base_sha256 == "ab" * 32 and found.metadata["modelspec.sai_model_spec"] == "1.0.1"
    add_placeholders(again, found)
    assert torch.equal(encode_prompts(again, ["a red <thing>"]), expected)


def test_a_nameless_file_takes_its_own_name(tmp_path):
    save_file({"emb_params": torch.ones(2, 24)}, tmp_path / "cat.safetensors")
    assert read_placeholders(tmp_path / "cat.safetensors").vectors["<cat>"].shape == (2, 24)


@pytest.mark.parametrize(
    ("initializers", "message"),
    [
        ({"ball": "red"}, "the tokenizer knows 'ball' already"),
        ({"my cat": "red"}, "a word without spaces"),
        ({"": "red"}, "a word without spaces"),
        ({"<thing>": "elephant"}, "initializer 'elephant' of '<thing>': the tokenizer does not know it"),
        ({"<thing>": ""}, "initializer '' of '<thing>'"),
    ],
)
def test_what_is_refused(pipe, initializers, message):
    with pytest.raises(ConfigError, match=message):
        start_placeholders(pipe, initializers)


def test_the_same_placeholder_twice_is_refused(pipe):
    start_placeholders(pipe, {"<thing>": "ball"})
    with pytest.raises(ConfigError, match="'<thing>' is learned already"):
        start_placeholders(pipe, {"<thing>": "red"})


def test_files_that_are_none(pipe, tmp_path):
    save_file({"<a>": torch.ones(1, 2, 3)}, tmp_path / "cube.safetensors")
    with pytest.raises(CheckpointError, match="cube.safetensors: <a> is .1, 2, 3.; expected placeholders"):
        read_placeholders(tmp_path / "cube.safetensors")
    save_file({"<a>": torch.ones(1, 2), "<b>": torch.ones(1, 3)}, tmp_path / "mixed.safetensors")
    with pytest.raises(CheckpointError, match="one width, found .2, 3."):
        read_placeholders(tmp_path / "mixed.safetensors")
    with pytest.raises(
        CheckpointError, match="w.safetensors: <a> has vectors of 7 numbers, this text encoder's have 24; .*use it with"
    ):
        add_placeholders(pipe, Placeholders({"<a>": torch.ones(1, 7)}), "w.safetensors")
