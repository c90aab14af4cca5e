import numpy as np
import pytest
import torch

from wan_alpha.data.clips import ClipInfo
from wan_alpha.data.sampling import (
    Geometry,
    check_num_frames,
    choose_frames,
    choose_geometry,
    derive_seed,
    frame_indices,
    render_clip,
    seeded_generator,
)
from wan_alpha.errors import ConfigError
from wan_alpha.media.timeline import Timeline


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("num_frames", [1, 5, 17, 81])
def test_valid_frame_counts(num_frames):
    assert check_num_frames(num_frames) == num_frames


@pytest.mark.parametrize(
    "num_frames, nearest",
    [(0, "1"), (-3, "1"), (2, "1"), (3, "1 or 5"), (4, "5"), (16, "17"), (18, "17"), (19, "17 or 21")],
)
def test_other_frame_counts_name_the_nearest(num_frames, nearest):
    with pytest.raises(
        ConfigError, match=f"num_frames = {num_frames} is not 4n.1 .* the nearest valid value is {nearest}$"
    ):
        check_num_frames(num_frames)


@pytest.mark.parametrize(
    "available, num_frames, mode, expected",
    [
        (1, 5, "head", [0, 0, 0, 0, 0]),
        (2, 5, "head", [0, 1, 0, 1, 0]),
        (4, 9, "random", [0, 1, 2, 3, 2, 1, 0, 1, 2]),
        (4, 9, "uniform", [0, 1, 2, 3, 2, 1, 0, 1, 2]),
        (9, 5, "head", [0, 1, 2, 3, 4]),
        (9, 5, "uniform", [0, 2, 4, 6, 8]),
        (5, 5, "random", [0, 1, 2, 3, 4]),
        (3, 1, "uniform", [0]),
    ],
)
def test_frame_indices(available, num_frames, mode, expected):
    assert frame_indices(available, num_frames, mode, generator()) == expected


def test_random_frames_are_contiguous_and_reach_both_ends():
    starts = set()
    for seed in range(60):
        indices = frame_indices(9, 5, "random", generator(seed))
        assert np.diff(indices).tolist() == [1, 1, 1, 1]
        starts.add(indices[0])
    assert starts == {0, 1, 2, 3, 4}


def test_keyframe_runs_start_at_entries_that_leave_room():
    draws = [frame_indices(40, 9, "keyframe", generator(seed), (0, 12, 24, 36)) for seed in range(30)]
    assert {draw[0] for draw in draws} == {0, 12, 24}
    assert all(np.diff(draw).tolist() == [1] * 8 for draw in draws)
    assert frame_indices(9, 9, "keyframe", generator(), (0, 4, 8)) == list(range(9))
    assert frame_indices(3, 5, "keyframe", generator(), (0, 2)) == [0, 1, 2, 1, 0]


def clip_info(times, keyframes=(0,), variable=False):
    times = np.asarray(times, np.float64)
    timeline = Timeline(times, keyframes, True, float(times[-1] - times[-2]))
    return ClipInfo(32, 32, len(times), round(len(times) / timeline.duration, 3), variable, timeline)


@pytest.mark.parametrize(
    "info, mode, target_fps, expected",
    [
        (clip_info(np.arange(40) / 20), "head", None, [0, 1, 2, 3, 4]),
        (clip_info(np.arange(40) / 20), "head", 10, [0, 2, 4, 6, 8]),
        (clip_info(np.arange(40) / 20), "head", 40, [0, 0, 1, 1, 2]),
        (clip_info(np.arange(40) / 20), "uniform", 10, [0, 10, 20, 28, 38]),
        (clip_info(np.arange(4) / 20), "head", 10, [0, 2, 0, 2, 0]),  # too short at this rate: forward and back
        (clip_info(np.arange(40) / 20, (0, 31)), "keyframe", 10, [0, 2, 4, 6, 8]),  # 31 leaves too little
        (clip_info([0, 0.1, 0.2, 0.7, 0.8], variable=True), "head", None, [0, 2, 2, 2, 3]),  # 5.556 fps on average
        (ClipInfo(32, 32, 9, 0.0), "head", 10, [0, 1, 2, 3, 4]),  # a folder of frames names no times
    ],
)
def test_frames_at_a_rate(info, mode, target_fps, expected):
    assert choose_frames(info, 5, mode, generator(), target_fps) == expected


def test_unknown_mode():
    with pytest.raises(ConfigError, match="head, random, uniform"):
        frame_indices(9, 5, "middle", generator())


@pytest.mark.parametrize("source", [(32, 32), (20, 100), (100, 20), (480, 832)])
@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("pan", [False, True])
def test_the_cut_stays_inside_and_the_scale_in_bounds(source, augment, pan):
    for seed in range(20):
        g = choose_geometry(source, (32, 48), 9, generator(seed), augment, pan)
        assert len(g.offsets) == 9
        for top, left in g.offsets:
            assert 0 <= top <= g.resized_height - 32 and 0 <= left <= g.resized_width - 48
        cover = max(32 / source[0], 48 / source[1])
        low, high = (1.25 if pan else 1.0), (2.0 if augment else 1.25 if pan else 1.0)
        for resized, original in ((g.resized_height, source[0]), (g.resized_width, source[1])):
            assert low * cover * original - 1 <= resized <= high * cover * original + 1
        assert pan or len(set(g.offsets)) == 1


def test_augmentation_varies_and_repeats():
    draws = [choose_geometry((64, 64), (32, 32), 5, generator(seed), augment=True) for seed in range(10)]
    assert len(set(draws)) == 10
    assert draws[3] == choose_geometry((64, 64), (32, 32), 5, generator(3), augment=True)


def test_a_pan_moves_in_a_straight_line():
    directions = set()
    for seed in range(20):
        g = choose_geometry((300, 400), (64, 64), 17, generator(seed), pan=True)
        path = np.array(g.offsets)
        room = np.array([g.resized_height - 64, g.resized_width - 64])
        assert (np.abs(path[-1] - path[0]) >= room // 3 - 1).all()
        line = path[0] + (path[-1] - path[0]) * np.linspace(0, 1, 17)[:, None]
        assert np.abs(path - line).max() <= 1  # rounding to whole pixels
        directions.add(tuple(np.sign(path[-1] - path[0]).tolist()))
    assert len(directions) == 4


def test_no_resize_is_exact(clip):
    indices = [3, 0, 8, 8, 1]
    geometry = Geometry(32, 32, 16, 20, ((0, 0), (4, 5), (16, 12), (1, 2), (0, 12)))
    rgb, alpha = render_clip(clip, indices, geometry)
    assert rgb.shape == (3, 5, 16, 20) and alpha.shape == (1, 5, 16, 20)
    assert rgb.dtype == alpha.dtype == torch.float32
    for t, (index, (top, left)) in enumerate(zip(indices, geometry.offsets, strict=True)):
        wanted = clip[index, top : top + 16, left : left + 20]
        assert np.array_equal(((rgb[:, t] + 1) * 127.5).round().permute(1, 2, 0).numpy(), wanted[..., :3])
        assert np.array_equal((alpha[0, t] * 255).round().numpy(), wanted[..., 3])


def test_colour_and_alpha_get_the_same_geometry():
    # Colour equal to alpha, and no clear pixel: whatever is done to one must show in the other.
    grey = np.random.default_rng(0).integers(1, 256, (5, 40, 30, 1), dtype=np.uint8)
    opaque = np.full_like(grey, 255)
    frames = np.concatenate([grey, grey, grey, opaque], axis=-1)
    as_alpha = np.concatenate([opaque, opaque, opaque, grey], axis=-1)
    for seed in range(5):
        g = choose_geometry((40, 30), (24, 24), 5, generator(seed), augment=True, pan=bool(seed % 2))
        rgb, _ = render_clip(frames, range(5), g)
        _, alpha = render_clip(as_alpha, range(5), g)
        torch.testing.assert_close(
            (rgb[:1] + 1) / 2, alpha, atol=1.01 / 255, rtol=0
        )  # opaque colour comes in whole levels


def test_seeds_depend_on_every_part():
    seeds = {
        derive_seed(*parts) for parts in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0), ("0", "0 0"), (10, 0)]
    }
    assert len(seeds) == 7
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, "clip") == 1820116542654743398  # the same on every machine and in every release
    assert torch.rand(1, generator=seeded_generator(4, "a")) == torch.rand(1, generator=seeded_generator(4, "a"))
