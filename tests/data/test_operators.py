import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffsynth.core.data.operators import DataProcessingPipeline

from wan_alpha.alpha.composite import BACKGROUND_COLORS, hard_render, soft_render
from wan_alpha.data.manifest import Row
from wan_alpha.data.operators import HardRenderRGBA, LoadRGBAVideoPair, SoftRenderRGBA
from wan_alpha.data.sampling import render_clip
from wan_alpha.errors import ConfigError, DataError
from wan_alpha.media.write import LosslessWriter


@pytest.fixture
def pair(tmp_path, clip, write_pair):
    return write_pair(tmp_path, "fox", clip)


def load(**options):
    return LoadRGBAVideoPair(**{"num_frames": 5, "height": 32, "width": 32, **options})


def as_uint8(sample):
    return (
        torch.cat([(sample["rgb"] + 1) * 127.5, sample["alpha"] * 255])
        .round()
        .to(torch.uint8)
        .permute(1, 2, 3, 0)
        .numpy()
    )


def test_every_way_to_name_a_clip(tmp_path, clip, pair):
    with LosslessWriter(tmp_path / "fox.mkv") as writer:
        writer.write(clip)
    record = {"video_fgr": pair[0].name, "video_pha": pair[1].name, "prompt": "a fox"}
    row = Row(3, *pair, prompt="a fox")
    samples = [
        load(base_path=tmp_path)(record),
        load(base_path=tmp_path)({"video": "fox_rgb.mkv", "prompt": "a fox"}),
        load()(str(pair[0])),
        load()(pair),
        load()(tmp_path / "fox.mkv"),
        load()(row),
        load()({"row": row, "sample_seed": 4}),
    ]
    for sample in samples:
        assert sample["rgb"].shape == (3, 5, 32, 32) and sample["alpha"].shape == (1, 5, 32, 32)
        assert np.array_equal(as_uint8(sample), clip[:5])
    assert [sample["prompt"] for sample in samples] == ["a fox", "a fox", "", "", "", "a fox", "a fox"]
    assert samples[-1]["sample_seed"] == 4 and samples[-1]["row"] == 3 and samples[0]["row"] == 0


def test_short_clips_play_forward_and_back(clip, pair):
    sample = load(num_frames=21)(pair)
    order = [*range(9), *range(7, -1, -1), 1, 2, 3, 4]
    assert np.array_equal(as_uint8(sample), clip[order])


def test_uniform_frames(clip, pair):
    assert np.array_equal(as_uint8(load(mode="uniform")(pair)), clip[[0, 2, 4, 6, 8]])


@pytest.mark.parametrize(
    ("num_frames", "num_held"),
    [(5, 5), (21, 9)],
    ids=["of a longer clip", "of a shorter clip"],
)
def test_only_wanted_frames_are_held(clip, pair, monkeypatch, num_frames, num_held):
    held = []

    def spy(frames, indices, geometry):
        held.append(len(frames))
        return render_clip(frames, indices, geometry)

    monkeypatch.setattr("wan_alpha.data.operators.render_clip", spy)
    uncached, cached = (load(mode="uniform", num_frames=num_frames, cache_clips=cache)(pair) for cache in (False, True))
    assert held == [num_held, len(clip)]
    assert torch.equal(uncached["rgb"], cached["rgb"]) and torch.equal(uncached["alpha"], cached["alpha"])


def test_a_still_of_one_frame_is_the_picture_itself(lemur):
    from PIL import Image

    with Image.open(lemur) as image:
        width, height = image.size
        picture = np.asarray(image.convert("RGBA"))
    sample = load(num_frames=1, height=height, width=width)(lemur)
    assert np.array_equal(as_uint8(sample)[0], picture)


def test_a_still_becomes_a_moving_clip(lemur):
    sample = load(num_frames=9, height=64, width=64)(lemur)
    steps = (sample["alpha"][0, 1:] - sample["alpha"][0, :-1]).abs().mean(dim=(1, 2))
    assert (steps > 0).all()
    assert 0.05 < sample["alpha"].mean() < 0.95


def test_cropping_is_the_same_for_colour_and_alpha(tmp_path, clip, write_pair):
    ramp = clip.copy()
    ramp[..., 3] = ramp[..., 0] = np.arange(1, 33) * 7  # colour and alpha carry the same picture
    pair = write_pair(tmp_path, "ramp", ramp)
    for seed in range(4):
        sample = load(height=24, width=24, augment=True, mode="random", seed=seed)(pair)
        red, alpha = (sample["rgb"][0] + 1) / 2, sample["alpha"][0]
        # Resampled premultiplied, red becomes the alpha-weighted mean of itself: equal up to the slope in a pixel.
        assert (red - alpha).abs().max() < 0.06


def test_seeds(pair):
    def rgb(operator, data=pair):
        return operator(data)["rgb"]

    options = {"augment": True, "mode": "random"}
    assert torch.equal(rgb(load(seed=1, **options)), rgb(load(seed=1, **options)))
    assert not torch.equal(rgb(load(seed=1, **options)), rgb(load(seed=2, **options)))
    drawing = load(generator=torch.Generator().manual_seed(0), **options)
    again = load(generator=torch.Generator().manual_seed(0), **options)
    first, second = rgb(drawing), rgb(drawing)
    assert not torch.equal(first, second)
    assert torch.equal(rgb(again), first) and torch.equal(rgb(again), second)
    row = Row(1, *pair)
    seeded = {"row": row, "sample_seed": 11}
    assert torch.equal(rgb(load(seed=1, **options), seeded), rgb(load(seed=2, **options), seeded))


def test_cached_clips_are_read_once(pair):
    operator = load(cache_clips=True, mode="random")
    first = operator(pair)
    assert torch.equal(first["rgb"], load(mode="random")(pair)["rgb"])
    for path in pair:
        state = path.stat()
        path.write_bytes(bytes(state.st_size))
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # so that only decoding would notice
    assert torch.equal(operator(pair)["rgb"], first["rgb"])
    with pytest.raises(DataError):
        load(mode="random")(pair)


def test_operators_compose(pair):
    pipeline = load() >> HardRenderRGBA(threshold=0.1) >> SoftRenderRGBA()
    assert isinstance(pipeline, DataProcessingPipeline)
    sample = pipeline(pair)
    for name, expected in (
        ("hard", hard_render(sample["rgb"][None], sample["alpha"][None], sample["hard_background"], 0.1)[0]),
        ("soft", soft_render(sample["rgb"][None], sample["alpha"][None], sample["soft_background"])[0]),
    ):
        assert torch.equal(sample[name], expected)
        assert torch.equal(sample[f"{name}_background"], BACKGROUND_COLORS[sample[f"{name}_background_index"]])
    assert not torch.equal(sample["hard"], sample["soft"])


def test_random_backgrounds_follow_the_sample_and_reach_all_eight(pair):
    sample = load()(pair)
    drawn = []
    for seed in range(64):
        rendered = (HardRenderRGBA() >> SoftRenderRGBA())({**sample, "sample_seed": seed})
        drawn.append((rendered["hard_background_index"], rendered["soft_background_index"]))
    assert {hard for hard, _ in drawn} == {soft for _, soft in drawn} == set(range(8))
    assert len(set(drawn)) > 20  # the two are drawn apart
    assert HardRenderRGBA()({**sample, "sample_seed": 5})["hard_background_index"] == drawn[5][0]


@pytest.mark.parametrize(
    "background, color, index",
    [
        ("green", (-1, 1, -1), 2),
        ("grey", (0, 0, 0), -1),
        (7, (1, 1, 1), 7),
        ((1.0, -1.0, -1.0), (1, -1, -1), 4),
        ((0.5, 0.0, -0.5), (0.5, 0, -0.5), -1),
    ],
)
def test_fixed_backgrounds(pair, background, color, index):
    sample = (load() >> HardRenderRGBA(background) >> SoftRenderRGBA(background))(pair)
    assert sample["hard_background"].tolist() == sample["soft_background"].tolist() == list(color)
    assert sample["hard_background_index"] == sample["soft_background_index"] == index
    clear = (sample["alpha"] == 0).expand_as(sample["rgb"])
    assert clear.any()
    assert torch.equal(sample["hard"][clear], sample["soft"][clear])


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: load(num_frames=16), "nearest valid value is 17"),
        (lambda: load(mode="tail"), "head, random, uniform"),
        (lambda: load(height=0), "height = 0"),
        (lambda: HardRenderRGBA("beige"), "beige"),
        (lambda: HardRenderRGBA(8), "index from 0 to 7"),
        (lambda: SoftRenderRGBA((0, 0, 255)), r"three floats in \[-1, 1\]"),
        (lambda: load()(17), "int is not a record"),
        (lambda: HardRenderRGBA()({"rgb": torch.zeros(3, 1, 8, 8), "alpha": torch.zeros(1, 1, 8, 8)}), "sample_seed"),
    ],
)
def test_wrong_options_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_paths_may_not_leave_the_base(tmp_path, pair):
    with pytest.raises(DataError, match="leaves the dataset folder"):
        load(base_path=tmp_path / "inner")({"video": "../fox_rgb.mkv"})


def test_the_light_modules_do_not_import_diffsynth():
    code = (
        "import sys, wan_alpha.data.dataset, wan_alpha.data.prepare, wan_alpha.media.write, wan_alpha.media.verify;"
        "sys.exit('diffsynth' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
