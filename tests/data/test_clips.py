import numpy as np
import pytest

from wan_alpha.data.clips import describe_clip, iter_clip, read_clip
from wan_alpha.data.manifest import Row
from wan_alpha.errors import DataError
from wan_alpha.media.write import LosslessWriter, OpaqueWriter, write_png


def lossless(path, clip, stream="rgba"):
    with LosslessWriter(path, 12, stream) as writer:
        writer.write(clip)
    return path


def test_pair_and_single_file_read_the_same(tmp_path, clip, write_pair):
    pair = Row(1, *write_pair(tmp_path, "x", clip))
    single = Row(2, lossless(tmp_path / "x.mkv", clip))
    for row in (pair, single):
        assert np.array_equal(read_clip(row), clip)
        assert np.array_equal(read_clip(row, 2, 3), clip[2:5])
        assert sum(1 for _ in iter_clip(row, 4)) == 5
    info = describe_clip(single)
    assert (info.width, info.height, info.num_frames, info.fps) == (32, 32, 9, 12)


def test_a_static_row_is_its_first_frame(tmp_path, clip, write_pair):
    fgr, pha = write_pair(tmp_path, "x", clip)
    row = Row(1, fgr, pha, kind="static")
    assert describe_clip(row).num_frames == 1
    assert np.array_equal(read_clip(row), clip[:1])


def no_alpha(folder, clip):
    with OpaqueWriter(folder / "a.mp4") as writer:
        writer.write(clip)
    return folder / "a.mp4", None


def other_size(folder, clip):
    return lossless(folder / "a.mkv", clip, "rgb"), lossless(folder / "b.mkv", clip[:, :16], "matte")


def other_length(folder, clip):
    return lossless(folder / "a.mkv", clip, "rgb"), lossless(folder / "b.mkv", clip[:5], "matte")


def colour_as_matte(folder, clip):
    return lossless(folder / "a.mkv", clip, "matte"), lossless(folder / "b.mkv", clip, "rgb")


def missing_matte(folder, clip):
    return lossless(folder / "a.mkv", clip, "rgb"), folder / "b.mkv"


def still_for_a_video(folder, clip):
    write_png(folder / "b.png", clip[0])
    return lossless(folder / "a.mkv", clip, "rgb"), folder / "b.png"


CASES = [
    (no_alpha, r"a.mp4: no alpha plane \(h264, yuv420p\) and no matte is named"),
    (other_size, "a.mkv: sizes differ: 32x32, its matte b.mkv 32x16"),
    (other_length, "a.mkv: frame counts differ: 9, its matte b.mkv 5"),
    (colour_as_matte, "b.mkv: a matte is grey.*swapped"),
    (missing_matte, "b.mkv: no such file"),
    (still_for_a_video, "frame counts differ: 9, its matte b.png 1"),
]


@pytest.mark.parametrize("make, message", CASES, ids=[case[0].__name__ for case in CASES])
def test_clips_that_do_not_fit(tmp_path, clip, make, message):
    with pytest.raises(DataError, match=message):
        read_clip(Row(1, *make(tmp_path, clip)))


def test_range_beyond_the_end(tmp_path, clip):
    row = Row(1, lossless(tmp_path / "a.mkv", clip))
    with pytest.raises(DataError, match="frames 6 to 10 were asked for, the clip has 9"):
        read_clip(row, 6, 5)
