"""``wan-alpha probe``: the figures, the verdict, the exit code."""

import json

import numpy as np
import pytest

import wan_alpha
from wan_alpha.cli.main import main
from wan_alpha.media.alpha_source import AlphaSource
from wan_alpha.media.convert import convert_clip
from wan_alpha.media.formats import find_format
from wan_alpha.media.premultiplied import premultiply
from wan_alpha.media.sprite_sheet import SpriteSheetWriter
from wan_alpha.media.write import LosslessWriter


def soft_clip():
    """Four frames of one colour under a soft edge, 40x32."""
    clip = np.full((4, 32, 40, 4), (200, 90, 40, 0), np.uint8)
    clip[..., 3] = np.clip(np.arange(40) * 12 - 120, 0, 255)
    return clip


def write(path, clip, stream="rgba"):
    with LosslessWriter(path, 10, stream) as writer:
        writer.write(clip)
    return path


def probe_json(capsys, *arguments):
    assert main(["probe", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_json_holds_what_there_is_to_know(tmp_path, capsys):
    clip = soft_clip()
    found = probe_json(capsys, write(tmp_path / "a.mkv", clip))
    assert (found["codec"], found["width"], found["height"], found["fps"]) == ("ffv1", 40, 32, 10)
    assert (found["num_frames"], found["bit_depth"], found["has_alpha"]) == (4, 8, True)
    assert found["alpha"]["survives_decoding"] and found["alpha"]["range"] == [0, 255]
    assert found["alpha"]["histogram"] == np.bincount(clip[..., 3].flat, minlength=256).tolist()
    assert found["alpha"]["shares"]["clear"] == pytest.approx((clip[..., 3] == 0).mean())
    assert found["state"]["verdict"] == "straight" and found["warnings"] == []


def test_premultiplied_colour_is_told_with_its_evidence(tmp_path, capsys):
    path = write(tmp_path / "a.mkv", premultiply(soft_clip()))
    assert probe_json(capsys, path)["state"]["verdict"] == "premultiplied"
    assert main(["probe", str(path)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "premultiplied (0.0% of" in printed and "warning: colour is premultiplied" in printed


def test_a_pair_is_found_by_its_name_and_alpha_that_is_lost_is_told(tmp_path, capsys):
    clip = soft_clip()
    colour = write(tmp_path / "x_rgb.mkv", clip, "rgb")
    assert not probe_json(capsys, colour)["has_alpha"]
    matte = write(tmp_path / "x_alpha.mkv", clip, "matte")
    found = probe_json(capsys, colour)
    assert found["has_alpha"] and found["matte"] == str(matte) and found["alpha"]["range"] == [0, 255]
    clip[..., 3] = 255
    found = probe_json(capsys, write(tmp_path / "opaque.mkv", clip))
    assert found["alpha"]["survives_decoding"] is False and "lost on the way" in found["warnings"][0]


def test_a_sprite_sheet_is_said_to_be_one(tmp_path, capsys):
    clip = np.zeros((3, 16, 16, 4), np.uint8)
    clip[:, 4:8, 4:8] = 255
    with SpriteSheetWriter(tmp_path / "sheet.png", num_frames=3) as writer:
        writer.write(clip)
    (warning,) = probe_json(capsys, tmp_path / "sheet.png")["warnings"]
    assert "sheet.png: a sprite sheet of 3 frames by the JSON beside it, read as one still" in warning
    converted = convert_clip(AlphaSource(tmp_path / "sheet.png"), tmp_path / "out.webp", find_format("webp"))
    assert converted.notes[0] == warning


def test_bear_keeps_its_alpha(capsys):
    bear = f"{wan_alpha.__path__[0]}/assets/media/bear_vp9_alpha.webm"
    found = probe_json(capsys, bear, "--frames", "none")
    assert found["num_examined"] == 82 and found["alpha"]["range"] == [68, 68]
    assert found["decoder"] == "libvpx-vp9" and found["state"]["verdict"] == "straight"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["none.mov"], "no such file"),
        (["a.mkv", "--matte", "m.mkv", "--packing", "alpha_left"], "exclude each other"),
        (["a.mkv", "--frames", "0"], "frames"),
        (
            ["text.mp4"],
            "probe: text.mp4: not a video that can be read, or cut short (ffmpeg: moov atom not found; "
            "Invalid data found when processing input)\n",
        ),
    ],
)
def test_what_cannot_be_probed_is_said_in_one_line(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.mp4").write_text("hello\n")
    assert main(["probe", *arguments]) == 2
    assert message in capsys.readouterr().err
