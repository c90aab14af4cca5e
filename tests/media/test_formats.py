"""Every output format: what comes back of the hardest clip, read by the package's own reader."""

import json
import os
import subprocess
import tracemalloc
import zipfile

import numpy as np
import pytest
from hard_clip import draw_hard_clip
from PIL import Image

from wan_alpha.errors import ConfigError, DataError
from wan_alpha.media import alpha_video, ffmpeg
from wan_alpha.media.apng import ApngWriter
from wan_alpha.media.formats import FORMATS, find_format, format_for, open_writer
from wan_alpha.media.probe import probe
from wan_alpha.media.read import read_rgb, read_rgba
from wan_alpha.media.read_back import iter_stored_alpha, verify_output
from wan_alpha.media.sprite_sheet import SpriteSheetWriter

FPS = 12.5
WITH_ALPHA = [name for name, one in FORMATS.items() if one.alpha]
# dB of alpha at the default quality that the lossy ones must reach on the hard clip.
LEAST_PSNR = {"webm": 45, "hevc": 45, "stacked": 45, "matte": 45}
ALL_EXACT = {"png", "png16", "still", "ffv1", "ffv1_16", "apng", "webp_lossless"}
HEVC = pytest.mark.skipif(not alpha_video.hevc_carries_alpha(), reason="this ffmpeg writes no HEVC with alpha")


@pytest.fixture(scope="module")
def hard():
    return draw_hard_clip()


@pytest.fixture(scope="module")
def wide():
    return draw_hard_clip(dtype=np.uint16)


def write(folder, name, clip, **options):
    path = folder / FORMATS[name].clip_name
    with open_writer(path, FORMATS[name], FPS, **options) as writer:
        for start in range(0, len(clip), 2):
            writer.write(clip[start : start + 2])
    return path


@pytest.mark.parametrize("name", [pytest.param(name, marks=HEVC if name == "hevc" else ()) for name in WITH_ALPHA])
def test_alpha_comes_back(tmp_path, hard, name):
    one = FORMATS[name]
    clip = hard[:1] if name == "still" else hard
    path = write(tmp_path, name, clip)
    error = verify_output(path, one, clip[..., 3])
    assert error.num_frames == len(clip)
    if one.max_error is not None:
        assert error.max_error <= one.max_error
    else:
        assert error.psnr >= LEAST_PSNR[name]
    with pytest.raises(DataError, match="alpha was lost"):
        verify_output(path, one, 255 - clip[..., 3])
    if name in ALL_EXACT:
        assert np.array_equal(read_rgba(path), clip)  # colour too, under clear pixels as well
    if one.is_lossless or name == "prores":
        assert error.clear_error == error.opaque_error == 0
    assert not [entry for entry in os.listdir(tmp_path) if entry.startswith(".")]


def test_the_limits_of_the_formats():
    assert find_format("prores").max_error <= 1
    exact = {name for name, one in FORMATS.items() if one.is_lossless}
    assert exact == ALL_EXACT | {"zip", "zip16", "webp", "gif", "sprites"}


@pytest.mark.parametrize("name", ["png16", "zip16", "ffv1_16"])
def test_sixteen_bits_are_kept(tmp_path, wide, name):
    path = write(tmp_path, name, wide)
    assert verify_output(path, FORMATS[name], wide[..., 3]).max_error == 0
    if name != "zip16":
        assert np.array_equal(read_rgba(path, depth=16), wide)
    with pytest.raises(DataError, match="alpha was lost"):
        verify_output(path, FORMATS[name], wide[..., 3] ^ 1)  # one level of 65535


def test_apng_keeps_sixteen_bits(tmp_path, wide):
    with ApngWriter(tmp_path / "a.apng", depth=16) as writer:
        writer.write(wide)
    with Image.open(tmp_path / "a.apng") as image:
        assert image.n_frames == len(wide)
    command = [ffmpeg.executable(), "-v", "error", "-f", "apng", "-i", str(tmp_path / "a.apng"), "-f", "rawvideo"]
    done = subprocess.run([*command, "-pix_fmt", "rgba64be", "pipe:1"], capture_output=True, check=True)
    assert np.array_equal(np.frombuffer(done.stdout, ">u2").reshape(wide.shape), wide)


def test_prores_keeps_ten_bits_and_its_tags(tmp_path, wide):
    path = write(tmp_path, "prores", wide)
    error = verify_output(path, FORMATS["prores"], wide[..., 3])
    assert error.max_error <= 0.2  # levels of 8 bits; one of 10 bits is 0.25
    info = probe(path)
    assert (info.color_matrix, info.color_range, info.fps) == ("bt709", "limited", FPS)
    visible = wide[..., 3] > 0
    colour = np.abs(read_rgba(path, depth=16).astype(int) - wide)[..., :3][visible]
    assert colour.mean() < 257  # a level of 8 bits


@pytest.mark.parametrize(
    "name", [name for name in FORMATS if FORMATS[name].suffix in (".mov", ".webm", ".mp4", ".mkv")]
)
def test_videos_say_their_rate_and_colours(tmp_path, hard, name):
    if name == "hevc" and not alpha_video.hevc_carries_alpha():
        pytest.skip("this ffmpeg writes no HEVC with alpha")
    info = probe(write(tmp_path, name, hard))
    assert info.fps == FPS and info.num_frames == len(hard)
    if FORMATS[name].suffix != ".mkv":
        assert (info.color_matrix, info.color_range) == ("bt709", "limited")


@pytest.mark.parametrize("name", ["apng", "webp", "gif"])
def test_animations_keep_time(tmp_path, hard, name):
    clip = np.concatenate([hard] * 4)
    with Image.open(write(tmp_path, name, clip)) as image:
        assert image.n_frames == len(clip) and image.info["loop"] == 0
        total = 0
        for index in range(image.n_frames):
            image.seek(index)
            image.load()
            total += image.info["duration"]
    assert total == pytest.approx(1000 * len(clip) / FPS, abs=10)  # milliseconds


@pytest.mark.parametrize("name", ["apng", "webp_lossless", "gif"])
def test_unchanged_and_vanishing_frames(tmp_path, name):
    clip = np.zeros((6, 20, 30, 4), np.uint8)
    clip[..., :3] = 40
    clip[1:3, 5:9, 7:11] = (250, 20, 30, 255)  # comes, stays, and goes again
    clip[4, 19, 29] = (1, 2, 3, 255)
    path = write(tmp_path, name, clip)
    back = read_rgba(path)
    assert np.array_equal(back[..., 3], clip[..., 3])
    if name != "gif":
        assert np.array_equal(back, clip)


def test_gif_is_clear_from_half_down(tmp_path, hard):
    back = read_rgba(write(tmp_path, "gif", hard))
    assert np.array_equal(back[..., 3], np.where(hard[..., 3] >= 128, 255, 0))
    opaque = hard[..., 3] >= 128
    assert np.abs(back.astype(int) - hard)[..., :3][opaque].mean() < 16


@pytest.mark.parametrize(
    "name", [name for name in WITH_ALPHA if name not in ("gif", "matte", "still", "png16", "zip16")]
)
def test_premultiplied_variants(tmp_path, hard, name):
    if name == "hevc" and not alpha_video.hevc_carries_alpha():
        pytest.skip("this ffmpeg writes no HEVC with alpha")
    path = write(tmp_path, name, hard, premultiplied=True)
    verify_output(path, FORMATS[name], hard[..., 3])
    if name in ALL_EXACT:
        expected = np.rint(hard[..., :3] * (hard[..., 3:] / 255.0))
        assert np.array_equal(read_rgba(path)[..., :3], expected)
        straight = read_rgba(path, source_state="premultiplied").astype(int)
        solid = hard[..., 3] > 128
        assert np.abs(straight - hard)[solid].max() <= 1


def test_sprite_sheets_say_where_each_frame_is(tmp_path, hard):
    path = tmp_path / "walk.png"
    with SpriteSheetWriter(path, 10, num_frames=len(hard)) as writer:
        writer.write(hard)
    sheet, described = np.asarray(Image.open(path)), json.loads((tmp_path / "walk.json").read_text())
    assert described["meta"]["size"] == {"w": sheet.shape[1], "h": sheet.shape[0]}
    assert described["meta"]["image"] == "walk.png" and described["meta"]["related_multi_packs"] == []
    for expected, frame in zip(hard, described["frames"], strict=True):
        x, y, width, height = (frame["frame"][key] for key in "xywh")
        assert np.array_equal(sheet[y : y + height, x : x + width], expected) and frame["duration"] == 100
    assert sheet.shape[0] / sheet.shape[1] == pytest.approx(1, abs=0.2)  # nearly square: 5 wide frames in one column


def test_long_clips_take_several_sheets_and_short_ones_remove_them(tmp_path, disc):
    path = tmp_path / "walk.png"
    for clip, sheets in ((np.concatenate([disc] * 2), 5), (disc[:3], 1)):
        with SpriteSheetWriter(path, 16, largest_side=70) as writer:  # 2 x 2 frames of 32x32
            writer.write(clip)
        assert len(list(tmp_path.glob("*.png"))) == len(list(tmp_path.glob("*.json"))) == sheets
        stored = np.stack(list(iter_stored_alpha(path, FORMATS["sprites"], (32, 32))))
        assert np.array_equal(stored, clip[..., 3])
    assert Image.open(path).size == (64, 64)
    (tmp_path / "walk-1.png").write_bytes(b"mine")
    with SpriteSheetWriter(path, 16) as writer:
        writer.write(disc[:1])
    assert (tmp_path / "walk-1.png").read_bytes() == b"mine" and Image.open(path).size == (32, 32)


def test_the_zip_is_the_sequence(tmp_path, hard):
    folder, archive = write(tmp_path, "png", hard), zipfile.ZipFile(write(tmp_path, "zip", hard))
    assert archive.namelist() == sorted(os.listdir(folder))
    assert all(archive.read(name) == (folder / name).read_bytes() for name in archive.namelist())


def test_stacked_video_has_two_halves_and_a_page_of_its_own(tmp_path, hard):
    clip = hard[:, :-1, :-1]  # odd sizes
    path = write(tmp_path, "stacked", clip)
    assert verify_output(path, FORMATS["stacked"], clip[..., 3]).psnr >= 45
    frame = read_rgb(path)[0].astype(int)
    assert frame.shape == (2 * 48, 256, 3)
    assert np.abs(frame[:47, :255] - clip[0, ..., :3]).mean() < 3
    page = (tmp_path / "stacked.player.html").read_text()
    assert "data:video/mp4;base64," in page and "@" not in page.split("<script")[1].split("</script>")[0]
    assert 'width="255" height="47"' in page and "http" not in page


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "hevc"])
def test_an_error_leaves_nothing_and_keeps_what_was_there(tmp_path, disc, name):
    one = FORMATS[name]
    clip = disc[:1] if name == "still" else disc
    with pytest.raises(RuntimeError), open_writer(tmp_path / one.clip_name, one, 16) as writer:
        writer.write(clip)
        raise RuntimeError("decoder broke")
    with pytest.raises(DataError, match="no frames were written"), open_writer(tmp_path / one.clip_name, one, 16):
        pass
    with pytest.raises(DataError, match="after frames of"), open_writer(tmp_path / one.clip_name, one, 16) as writer:
        writer.write(clip)
        writer.write(clip[:, :16])
    assert os.listdir(tmp_path) == []
    missing = tmp_path / "nowhere" / one.clip_name
    if one.suffix:
        with pytest.raises(DataError, match="nowhere does not exist"), open_writer(missing, one, 16) as writer:
            writer.write(clip)


def test_a_still_is_one_frame(tmp_path, disc):
    with pytest.raises(DataError, match="one frame"), open_writer(tmp_path / "a.png", FORMATS["still"], 16) as writer:
        writer.write(disc)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["-y.webp", "concat:a|b.apng", "50%d.gif", "http:a.webm", "a\nb.mov", "-i"])
def test_names_that_look_like_options_or_addresses(tmp_path, disc, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    one = format_for(name)
    with open_writer(name, one, 16) as writer:
        writer.write(disc[:3])
    assert os.listdir(tmp_path) == [name]
    verify_output(name, one, disc[:3, ..., 3])


@pytest.mark.parametrize("name", ["a\0.webp", "a\0.webm", "a\0"])
def test_a_name_with_a_nul_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="cannot hold NUL"):
        open_writer(tmp_path / name, format_for(name), 16)


@pytest.mark.parametrize(
    "path, name, message",
    [
        ("a.mp4", None, "a .mp4 can be stacked, matte, rgb, preview; say which"),
        ("a.xyz", None, "no format for the suffix '.xyz'"),
        ("a.mov", "webm", "format webm writes .webm files"),
        ("a.mov", "png", "a folder, whose name has no suffix"),
        ("a.mov", "movie", "format 'movie' is unknown: choose one of png"),
    ],
)
def test_formats_are_not_guessed(path, name, message):
    with pytest.raises(ConfigError, match=message):
        format_for(path, name)


@pytest.mark.parametrize(
    "path, is_still, expected",
    [("a", False, "png"), ("a.MOV", False, "prores"), ("a.png", True, "still"), ("a.png", False, "sprites")],
)
def test_a_suffix_says_the_format(path, is_still, expected):
    assert format_for(path, None, is_still).name == expected


def test_hevc_without_alpha_in_the_encoder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(alpha_video, "hevc_carries_alpha", lambda: False)
    with pytest.raises(ConfigError, match="cannot write HEVC with alpha.*Choose webm or prores"):
        open_writer(tmp_path / "a.mov", FORMATS["hevc"], 16)


def test_lost_alpha_is_an_error(tmp_path, disc):
    """A codec that drops the plane, and one that keeps a plane which says opaque."""
    opaque = disc.copy()
    opaque[..., 3] = 255
    path = write(tmp_path, "webp", opaque)
    with pytest.raises(DataError, match="reads back as opaque everywhere"):
        verify_output(path, FORMATS["webp"], disc[..., 3])
    path = write(tmp_path, "rgb", disc)
    with pytest.raises(DataError, match="no alpha plane"):
        verify_output(path, FORMATS["webm"], disc[..., 3])
    path = write(tmp_path, "png", disc[:4])
    with pytest.raises(DataError, match="only 4 frames"):
        verify_output(path, FORMATS["png"], disc[..., 3])


@pytest.mark.parametrize(
    "level, lost", [(0, False), (1, True), (127, True), (128, False)], ids=["clear", "faint", "half", "kept"]
)
def test_a_gif_that_keeps_nothing_visible_is_an_error(tmp_path, disc, level, lost):
    disc[..., 3] = 0
    disc[2, 8:12, 8:12, 3] = level
    path = write(tmp_path, "gif", disc)
    if lost:
        with pytest.raises(DataError, match=f"nothing of the clip is left to see.* largest is {level}; webp"):
            verify_output(path, FORMATS["gif"], disc[..., 3])
    else:
        assert verify_output(path, FORMATS["gif"], disc[..., 3]).max_error == 0


@pytest.mark.parametrize("name", ["png", "webp", "webm", "stacked"])
def test_writing_in_one_chunk_or_many_is_the_same(tmp_path, hard, name):
    paths = []
    for chunk in (1, len(hard)):
        path = tmp_path / f"by_{chunk}{FORMATS[name].suffix}"
        with open_writer(path, FORMATS[name], 16) as writer:
            for start in range(0, len(hard), chunk):
                frames = hard[start : start + chunk].copy()
                writer.write(frames)
                frames[:] = 0  # callers may reuse their memory
        paths.append(path)
    assert np.array_equal(read_rgba(paths[0]), read_rgba(paths[1]))


@pytest.mark.parametrize("name", ["png", "apng", "webp", "zip16", "prores", "stacked", "preview"])
def test_memory_stays_that_of_a_few_frames(tmp_path, name):
    """Arrays and bytes that Python holds while a long clip is written and read back, beside a short one's."""
    frame = np.zeros((1, 128, 160, 4), np.uint8)
    peaks = []
    for num_frames in (30, 120):
        tracemalloc.start()
        with open_writer(tmp_path / FORMATS[name].clip_name, FORMATS[name], 16) as writer:
            for t in range(num_frames):
                frame[0, t, :, :] = 200  # a writer that kept frames would keep 120 different ones
                writer.write(frame)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 10 * frame.nbytes
