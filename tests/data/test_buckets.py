"""Buckets: which there are, and which one a clip goes to."""

import math

import pytest

from wan_alpha.data.buckets import ASPECTS, Bucket, buckets_within, choose_bucket, parse_aspect, parse_bucket
from wan_alpha.errors import ConfigError


def test_a_bucket_is_its_text():
    bucket = parse_bucket(" 49x256x448")
    assert (bucket.frames, bucket.size, str(bucket)) == (49, (256, 448), "49x256x448")
    assert bucket.aspect == 1.75


@pytest.mark.parametrize(
    ("text", "multiple", "message"),
    [
        ("49x256", 16, "write frames x height x width, such as 49x256x448"),
        ("ax16x16", 16, "write frames x height x width"),
        ("48x256x448", 16, "49x256x448|45x256x448 or 49x256x448 would be valid"),
        ("0x256x448", 16, "1x256x448 or 5x256x448 would be valid"),
        ("49x250x448", 16, "multiples of 16 pixels: 49x240x448 or 49x256x448 would be valid"),
        ("50x250x450", 16, "49x240x448 or 53x256x464 would be valid"),
        ("49x8x448", 16, "49x16x448 or 49x32x448 would be valid"),
        ("49x272x448", 32, "multiples of 32 pixels: 49x256x448 or 49x288x448 would be valid"),
    ],
)
def test_off_the_grid_the_nearest_valid_ones_are_named(text, multiple, message):
    with pytest.raises(ConfigError, match=message):
        parse_bucket(text, multiple)


@pytest.mark.parametrize("text", ["16", "16:0", "a:b", "1.5:1"])
def test_an_aspect_is_two_numbers(text):
    with pytest.raises(ConfigError, match="write width:height"):
        parse_aspect(text)


@pytest.mark.parametrize("multiple", [16, 32])
@pytest.mark.parametrize("pixels", [81 * 480 * 832, 17 * 272 * 272, 9 * 64 * 64])
def test_a_budget_gives_the_largest_sizes_within_it(pixels, multiple):
    frames = (1, 5, 9) if pixels < 10**6 else (17, 49, 81)
    buckets = buckets_within(pixels, frames, multiple=multiple)
    assert len(set(buckets)) == len(buckets) and {bucket.frames for bucket in buckets} == set(frames)
    for bucket in buckets:
        assert bucket.frames * bucket.height * bucket.width <= pixels
        assert bucket.height % multiple == bucket.width % multiple == 0
    for length in frames:
        area = pixels / length
        for aspect in map(parse_aspect, ASPECTS):
            # A frame of this aspect fills all of the budget but what the grid takes from either side.
            width, height = math.sqrt(area * aspect), math.sqrt(area / aspect)
            filled = max(
                bucket.height * bucket.width * min(bucket.aspect / aspect, aspect / bucket.aspect)
                for bucket in buckets
                if bucket.frames == length
            )
            assert filled >= (width - multiple) * (height - multiple)


def test_wans_own_size_comes_of_its_own_budget():
    assert buckets_within(81 * 480 * 832, (81,), ("16:9",)) == [Bucket(81, 480, 832)]
    assert buckets_within(17 * 272 * 272, (17,), ("1:1",)) == [Bucket(17, 272, 272)]
    assert buckets_within(81 * 480 * 832, (17,), ("1:1",), max_area=640 * 640) == [Bucket(17, 640, 640)]


def test_a_budget_that_is_too_small_is_refused():
    with pytest.raises(ConfigError, match=r"123 pixels a frame \(81 frames of 10000 pixels in all\) are too few"):
        buckets_within(10000, (81,), ("1:1",))


BUCKETS = [Bucket(*shape) for shape in [(9, 64, 64), (17, 32, 64), (17, 64, 64), (17, 128, 128), (17, 64, 32)]]


@pytest.mark.parametrize(
    ("num_frames", "size", "expected"),
    [
        (1, (64, 64), (9, 64, 64)),  # a still, and a clip shorter than all: the shortest
        (8, (640, 320), (9, 64, 64)),
        (16, (64, 64), (9, 64, 64)),
        (17, (100, 200), (17, 32, 64)),
        (400, (200, 90), (17, 64, 32)),
        (17, (127, 127), (17, 64, 64)),  # the larger one of its aspect would have to be enlarged for
        (17, (128, 130), (17, 128, 128)),
        (17, (20, 20), (17, 64, 64)),
        (17, (128, 181), (17, 128, 128)),  # nearer to 1:1 than to 2:1
        (17, (128, 182), (17, 32, 64)),
    ],
)
def test_a_clip_goes_where_its_length_and_aspect_fit(num_frames, size, expected):
    assert choose_bucket(BUCKETS, num_frames, size) == Bucket(*expected)
