"""Alpha out of files that other programs write: each kind reads as straight RGBA with the alpha that was put in."""

import numpy as np
import pytest
from encode import encode
from hard_clip import draw_hard_clip
from PIL import Image

from wan_alpha.data.clips import describe_clip, read_frames
from wan_alpha.data.manifest import Row
from wan_alpha.media import alpha_video
from wan_alpha.media.alpha_source import AlphaSource, read_source
from wan_alpha.media.formats import FORMATS, open_writer
from wan_alpha.media.probe import probe
from wan_alpha.media.read import read_matte, read_rgb, read_rgba
from wan_alpha.media.verify import compare_alpha

HEVC = pytest.mark.skipif(not alpha_video.hevc_carries_alpha(), reason="this ffmpeg writes no HEVC with alpha")


@pytest.fixture(scope="module")
def hard():
    return draw_hard_clip()


def alpha_error(path, clip):
    return compare_alpha(path, read_rgba(path)[..., 3], clip[..., 3])


@pytest.mark.parametrize("profile, bits", [("4444", 8), ("4444xq", 8), ("4444xq", 16)])
def test_prores_4444_and_xq(tmp_path, hard, profile, bits):
    arguments = ["-c:v", "prores_ks", "-profile:v", profile, "-pix_fmt", "yuva444p10le", "-alpha_bits", bits]
    path = encode(tmp_path / "a.mov", hard, *arguments)
    info = probe(path)
    assert (info.codec, info.has_alpha, info.num_frames) == ("prores", True, 5) and info.bit_depth >= 10
    assert alpha_error(path, hard).max_error <= 1
    opaque = hard[..., 3] == 255
    assert np.abs(read_rgba(path).astype(int) - hard)[opaque][:, :3].mean() < 4
    deep = read_rgba(path, depth=16)
    assert deep.dtype == np.uint16 and np.abs(deep[..., 3] / 257 - hard[..., 3]).max() <= 1.1


@HEVC
def test_hevc_with_an_alpha_layer(tmp_path, hard):
    arguments = ["-pix_fmt", "yuva420p", "-crf", 4, "-tag:v", "hvc1", "-x265-params", "log-level=error"]
    path = encode(tmp_path / "a.mov", hard, "-c:v", "libx265", *arguments)
    info = probe(path)
    assert (info.codec, info.has_alpha, info.num_frames) == ("hevc", True, 5)
    error = alpha_error(path, hard)
    assert error.psnr > 40 and not error.is_flat
    assert np.array_equal(read_rgba(path, 3, 1)[0], read_rgba(path)[3])  # the layer is found again after seeking


def pillow(path, clip, **options):
    first, *others = (Image.fromarray(frame) for frame in clip)
    first.save(path, save_all=True, append_images=others, duration=80, loop=0, **options)
    return path


def test_animated_webp_is_exact_where_it_is_lossless(tmp_path, hard):
    by_pillow = pillow(tmp_path / "a.webp", hard, lossless=True, exact=True, kmin=0)
    by_ffmpeg = encode(tmp_path / "b.webp", hard, "-c:v", "libwebp_anim", "-lossless", 1, "-pix_fmt", "bgra")
    for path in (by_pillow, by_ffmpeg):
        assert (probe(path).codec.lower(), probe(path).has_alpha, probe(path).num_frames) == ("webp", True, 5)
        assert alpha_error(path, hard).max_error == 0
        assert np.array_equal(read_source(AlphaSource(path), [1, 4])[..., 3], hard[[1, 4], ..., 3])
    seen = hard[..., 3] > 0
    assert np.array_equal(read_rgba(by_pillow)[seen], hard[seen])


def test_animated_webp_with_lossy_colour_keeps_its_alpha(tmp_path, hard):
    path = pillow(tmp_path / "a.webp", hard, quality=80, alpha_quality=100)
    assert alpha_error(path, hard).max_error == 0


def test_gif_has_clear_and_opaque_pixels(tmp_path, hard):
    flat = hard.copy()
    flat[..., :3] = (200, 40, 90)
    flat[..., 3] = np.where(hard[..., 3] >= 128, 255, 0)
    palette = "split[a][b];[a]palettegen=reserve_transparent=1[p];[b][p]paletteuse=alpha_threshold=128:dither=none"
    path = encode(tmp_path / "a.gif", flat, "-filter_complex", palette)
    info = probe(path)
    assert (info.codec.lower(), info.has_alpha, info.num_frames) == ("gif", True, 5)
    assert alpha_error(path, flat).max_error == 0
    opaque = flat[..., 3] == 255
    assert np.abs(read_rgba(path)[opaque].astype(int) - flat[opaque]).max() <= 1
    row = Row(1, path)
    assert describe_clip(row).num_frames == 5
    assert np.array_equal(read_frames(row, [0, 3])[..., 3], flat[[0, 3], ..., 3])


def test_animated_png(tmp_path, hard):
    path = encode(tmp_path / "a.apng", hard, "-f", "apng", "-plays", 0, "-pix_fmt", "rgba")
    assert np.array_equal(read_rgba(path), hard)


def test_stacked_alpha_is_read_by_its_luma(tmp_path, hard):
    """Colour against clear ground at the seam: halved chroma carries it into the matte, luma does not."""
    clip = hard.copy()
    clip[..., :3] = (250, 20, 20)
    clip[:, -4:, ..., 3] = 0
    path = tmp_path / "a.mp4"
    with open_writer(path, FORMATS["stacked"], 10) as writer:
        writer.write(clip)
    found = read_source(AlphaSource(path, packing="alpha_below"))
    assert np.array_equal(found[..., 3], read_matte(path)[:, clip.shape[1] :])
    error = compare_alpha(path, found[..., 3], clip[..., 3])
    assert error.psnr > 50
    halves = read_rgb(path)[:, clip.shape[1] :].astype(np.uint16)
    assert error.psnr > compare_alpha(path, ((halves.sum(-1) + 1) // 3).astype(np.uint8), clip[..., 3]).psnr + 6


@pytest.mark.parametrize("pix_fmt, color_range", [("yuv420p", "tv"), ("yuv444p", "pc"), ("yuvj422p", "pc")])
def test_packed_colour_and_luma_are_those_of_the_whole_picture(tmp_path, hard, pix_fmt, color_range):
    packed = np.concatenate([hard[..., :3], np.repeat(hard[..., 3:], 3, axis=-1)], axis=2)
    path = encode(
        tmp_path / "a.mkv", packed, "-vf", f"scale=out_range={color_range}", "-c:v", "libx264", "-crf", 8,
        "-pix_fmt", pix_fmt, "-color_range", color_range,
    )  # fmt: skip
    width, found = hard.shape[2], read_source(AlphaSource(path, packing="alpha_right"))
    assert np.array_equal(found[..., :3], read_rgb(path)[:, :, :width])
    assert np.array_equal(found[..., 3], read_matte(path)[:, :, width:])
    assert compare_alpha(path, found[..., 3], hard[..., 3]).psnr > 45
