import json
from dataclasses import replace

import pytest
import torch

from wan_alpha.data.cached_samples import LatentCacheDataset
from wan_alpha.data.dataset import collate
from wan_alpha.data.latent_cache import (
    CacheIndex,
    CacheItem,
    LatentCache,
    content_key,
    has_empty_context,
    item_path,
    item_problem,
    pad_context,
    read_index,
    read_item,
    remove_strangers,
    write_empty_context,
    write_index,
    write_item,
)
from wan_alpha.errors import DataError
from wan_alpha.weights.io import load_state_dict, read_metadata, save_safetensors


def make_item(seed=0, num_tokens=5):
    generator = torch.Generator().manual_seed(seed)
    return CacheItem(
        latents=torch.randn(16, 2, 4, 6, generator=generator),
        context=torch.randn(num_tokens, 8, generator=generator),
        ellipse=torch.rand(2, 4, 6, generator=generator),
        prompt=f'a "red" circle, größer {seed}',
        background="cyan",
        sources=("a_rgb.mp4", "a_alpha.mp4"),
    )


@pytest.fixture
def cache(tmp_path):
    for index in range(3):
        write_item(tmp_path, f"key{index}", make_item(index, num_tokens=3 + index))
    write_empty_context(tmp_path, torch.ones(1, 8), "text", context_length=7)
    index = CacheIndex(("key0", "key1", "key2"), "vae", "text", context_length=7, preprocessing={"height": 32})
    write_index(tmp_path, index)
    return LatentCache.open(tmp_path)


def test_an_item_comes_back_as_it_was_written(tmp_path):
    item = make_item()
    write_item(tmp_path, "key", item)
    found = read_item(tmp_path, "key")
    for name in ("latents", "context", "ellipse"):
        assert torch.equal(getattr(found, name), getattr(item, name))
    assert (found.prompt, found.background, found.sources) == (item.prompt, item.background, item.sources)
    assert item_problem(tmp_path, "key") is None


def test_nothing_but_finished_files_is_left(tmp_path):
    write_item(tmp_path, "key", make_item())
    write_index(tmp_path, CacheIndex(("key",), "vae", "text", 7))
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["cache.json", "key.safetensors"]


def test_the_index_comes_back_as_it_was_written(cache):
    assert read_index(cache.folder) == cache.index
    cache.verify()


def damage_truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


def damage_header(path):
    path.write_bytes(path.read_bytes()[:20])


def damage_swap(path):
    path.write_bytes(path.with_name("key0.safetensors").read_bytes())


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_truncate, "truncated"),
        (damage_header, "truncated"),
        (damage_swap, "not the item"),
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(b""), "truncated"),
    ],
)
def test_a_damaged_item_is_found_and_named(cache, damage, reason):
    damage(item_path(cache.folder, "key2"))
    with pytest.raises(DataError, match=rf"key2\.safetensors: {reason}.*wan-alpha cache"):
        cache.verify()
    assert item_problem(cache.folder, "key1") is None


def test_reading_a_truncated_item_names_the_file(cache):
    damage_truncate(item_path(cache.folder, "key1"))
    with pytest.raises(DataError, match=r"key1\.safetensors"):
        LatentCacheDataset(cache)[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not a cache index"), ('{"format_version": 99}', "version 99, expected 1"), ("{}", "not a cache index")],
)
def test_a_wrong_index_is_refused(tmp_path, text, message):
    (tmp_path / "cache.json").write_text(text)
    with pytest.raises(DataError, match=message):
        LatentCache.open(tmp_path)


def test_an_unfinished_cache_is_refused(tmp_path):
    write_item(tmp_path, "key", make_item())
    with pytest.raises(DataError, match="let it finish"):
        LatentCache.open(tmp_path)


def test_the_empty_context_belongs_to_one_text_encoder(cache):
    assert has_empty_context(cache.folder, "text")
    assert not has_empty_context(cache.folder, "another")
    assert torch.equal(cache.empty_context(), pad_context(torch.ones(1, 8), 7))
    (cache.folder / "empty_prompt.safetensors").unlink()
    with pytest.raises(DataError, match="empty_prompt"):
        cache.verify()


def test_strangers_are_removed_and_counted(cache):
    assert remove_strangers(cache.folder, ["key0", "key2"]) == 1
    assert not item_path(cache.folder, "key1").exists()
    assert item_path(cache.folder, "key2").exists()


def test_the_key_depends_on_every_value_and_not_on_the_order():
    key = content_key(caption="a", height=32)
    assert key == content_key(height=32, caption="a")
    others = {content_key(caption="b", height=32), content_key(caption="a", height=48), content_key(caption="a")}
    assert len({key, *others}) == 4


def test_samples_are_padded_float32_and_stack(cache):
    dataset = LatentCacheDataset(cache, seed=3)
    samples = [dataset[index] for index in range(3)]
    for index, sample in enumerate(samples):
        assert sample["context"].shape == (7, 8)
        assert torch.equal(sample["context"][: 3 + index], make_item(index, 3 + index).context)
        assert sample["context"][3 + index :].abs().max() == 0
    batch = collate(samples)
    assert batch["latents"].shape == (3, 16, 2, 4, 6)
    assert batch["ellipse"].shape == (3, 2, 4, 6)
    assert batch["sample_seed"].dtype == torch.int64


def test_seeds_depend_on_run_epoch_and_index_alone(cache):
    dataset = LatentCacheDataset(cache, seed=3, repeat=2)
    first = [dataset[index]["sample_seed"] for index in range(len(dataset))]
    dataset.set_epoch(1)
    second = [dataset[index]["sample_seed"] for index in range(len(dataset))]
    other = LatentCacheDataset(cache, seed=4, repeat=2)[0]["sample_seed"]
    assert len(dataset) == 6
    assert len({*first, *second, other}) == 13
    dataset.set_epoch(0)
    assert [dataset[index]["sample_seed"] for index in reversed(range(6))] == first[::-1]
    assert torch.equal(dataset[4]["latents"], dataset[1]["latents"])
    with pytest.raises(IndexError):
        dataset[6]


@pytest.mark.parametrize(
    ("change", "differing"),
    [
        ({"vae_fingerprint": "other"}, {"the RGBA VAE that made the latents"}),
        ({"text_fingerprint": "other"}, {"the text encoder that made the contexts"}),
        ({"keys": ("key0", "key1")}, {"cached clips"}),
        ({"keys": ("key1", "key0", "key2")}, {"cached clips"}),
        ({}, set()),
    ],
)
def test_the_fingerprint_tells_what_changed(cache, change, differing):
    other = LatentCacheDataset(
        LatentCache(cache.folder, replace(cache.index, **change)), seed=1, repeat=2
    ).fingerprint()
    before = LatentCacheDataset(cache).fingerprint()
    assert {name for name in before if before[name] != other[name]} == differing and before.keys() == other.keys()


def test_the_index_is_readable_json(cache):
    content = json.loads((cache.folder / "cache.json").read_text())
    assert content["keys"] == ["key0", "key1", "key2"]
    assert content["preprocessing"] == {"height": 32}


def test_several_captions_are_kept_and_one_is_taken_by_each_sample(tmp_path):
    item = replace(
        make_item(), other_prompts=("b", "c"), other_contexts=(torch.full((2, 8), 2.0), torch.full((7, 8), 3.0))
    )
    write_item(tmp_path, "key", item)
    found = read_item(tmp_path, "key")
    assert found.other_prompts == ("b", "c") and item_problem(tmp_path, "key") is None
    assert all(torch.equal(*pair) for pair in zip(found.other_contexts, item.other_contexts, strict=True))
    write_empty_context(tmp_path, torch.ones(1, 8), "text", context_length=7)
    write_index(tmp_path, CacheIndex(("key",) * 40, "vae", "text", context_length=7))
    cache = LatentCache.open(tmp_path)
    cache.verify()

    def chosen(seed, epoch):
        dataset = LatentCacheDataset(cache, seed)
        dataset.set_epoch(epoch)
        samples = [dataset[index] for index in range(40)]
        contexts = {"b": 2.0, "c": 3.0}
        assert all(
            float(one["context"][0, 0]) == contexts.get(one["prompt"], float(item.context[0, 0])) for one in samples
        )
        return [sample["prompt"] for sample in samples]

    assert set(chosen(0, 0)) == {item.prompt, "b", "c"}
    assert chosen(0, 0) == chosen(0, 0) and chosen(0, 0) != chosen(0, 1) and chosen(0, 0) != chosen(1, 0)
    assert cache.prompts()[:3] == [item.prompt, "b", "c"]
    dataset = LatentCacheDataset(cache)
    dataset.set_epoch(7)
    assert dataset.clip(3)["prompt"] == item.prompt and "sample_seed" not in dataset.clip(3)


def test_an_item_that_lacks_a_caption_is_damaged(tmp_path):
    item = replace(make_item(), other_prompts=("b",), other_contexts=(torch.ones(2, 8),))
    path = write_item(tmp_path, "key", item)
    tensors = load_state_dict(path)
    metadata = read_metadata(path)
    del tensors["context_2"]
    save_safetensors(tensors, path, metadata)
    assert item_problem(tmp_path, "key") == "not the item that its name says"
    with pytest.raises(DataError, match="expected the tensors"):
        read_item(tmp_path, "key")


def test_sizes_are_groups_and_parts_have_their_shares(cache):
    wide = replace(make_item(), latents=torch.zeros(16, 2, 4, 8), ellipse=torch.zeros(2, 4, 8))
    write_item(cache.folder, "wide", wide)
    parts = ({"name": "a", "num_items": 3, "weight": 1.0}, {"name": "b", "num_items": 1, "weight": 1.0})
    write_index(cache.folder, replace(cache.index, keys=("key0", "key1", "key2", "wide"), parts=parts))
    dataset = LatentCacheDataset(LatentCache.open(cache.folder), seed=1)
    assert [dataset.group_of(index) for index in range(6)] == [(2, 4, 6)] * 3 + [(2, 4, 8)] * 3
    assert sorted(dataset.epoch_samples(0)) == [0, 1, 2, 3, 4, 5] and dataset[5]["latents"].shape[-1] == 8
    assert [line.split()[:2] for line in dataset.summary().splitlines()] == [
        ["latents", "(frames"], ["2x4x6", "3"], ["2x4x8", "1"], ["dataset", "clips"], ["a", "3"], ["b", "1"],
    ]  # fmt: skip
    other = LatentCache(cache.folder, replace(dataset.cache.index, parts=(parts[0], parts[1] | {"weight": 2.0})))
    before, now = dataset.fingerprint(), LatentCacheDataset(other).fingerprint()
    assert [name for name in before if before[name] != now[name]] == ["shares of the datasets"]
