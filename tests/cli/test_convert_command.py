"""``wan-alpha convert`` from the command line: files, figures, exit codes."""

import numpy as np
import pytest

from wan_alpha.cli.main import main
from wan_alpha.media.read import read_rgba
from wan_alpha.media.write import LosslessWriter


@pytest.fixture
def clip(tmp_path):
    y, x = np.mgrid[:32, :48]
    frames = np.stack([np.stack([x * 5, y * 7, x + y, (x * 5 + 9 * t) % 256], axis=-1) for t in range(5)])
    with LosslessWriter(tmp_path / "in.mkv", 12) as writer:
        writer.write(frames.astype(np.uint8))
    return tmp_path / "in.mkv"


def test_convert_prints_what_became_of_alpha(clip, tmp_path, capsys):
    assert main(["convert", str(clip), str(tmp_path / "out.webp"), "--prompt", "waves"]) == 0
    shown = capsys.readouterr().out
    assert "out.webp (webp): alpha exact; 5 frames of 48x32, 12 fps" in shown and "out.webp.manifest.json" in shown
    assert np.array_equal(read_rgba(tmp_path / "out.webp")[..., 3], read_rgba(clip)[..., 3])


def test_options_reach_the_output(clip, tmp_path, capsys):
    arguments = ["--format", "png16", "--start", "1", "--num-frames", "2", "--premultiplied"]
    assert main(["convert", str(clip), str(tmp_path / "out"), *arguments]) == 0
    assert "2 frames of 48x32, 12 fps, premultiplied" in capsys.readouterr().out
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["in.mkv", "out.mp4"], "say which with --format"),
        (["in.mkv", "out.webm", "--background", "red"], "background has no effect"),
        (["gone.mkv", "out.webm"], "no such file"),
        (["in.mkv", "in.mkv"], "is the source itself"),
        (["in.mkv"], "output: missing"),
        (["in.mkv", "out", "--matte", "in.mkv", "--packing", "alpha_below"], "matte"),
        (["in.mkv", "none/out.webm"], "does not exist"),
    ],
)
def test_mistakes_are_one_message_and_exit_code_2(clip, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["convert", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
