"""The demo's own footage: repeatable, split cleanly, and never over somebody's files."""

import pytest

from wan_alpha.demo.material import HELD_OUT_PREFIX, split_manifest, write_material
from wan_alpha.errors import ConfigError
from wan_alpha.media.read import read_rgba


def test_a_smaller_run_leaves_no_clip_of_a_larger_one(tmp_path):
    folder = tmp_path / "clips"
    write_material(folder, num_clips=3, num_held_out=2)
    before = read_rgba(folder / "train_000.mkv")
    write_material(folder, num_clips=1, num_held_out=1)
    assert {path.name for path in folder.glob("*.mkv")} == {"train_000.mkv", f"{HELD_OUT_PREFIX}_000.mkv"}
    assert (read_rgba(folder / "train_000.mkv") == before).all()
    assert before.shape == (9, 64, 64, 4) and before[..., 3].min() == 0 and before[..., 3].max() > 100
    assert (folder / "lemur.txt").read_text().startswith("The background is transparent.")


def test_a_folder_of_somebody_elses_is_refused(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    (folder / "mine.mov").write_bytes(b"precious")
    with pytest.raises(ConfigError, match="not the demo's"):
        write_material(folder, num_clips=1, num_held_out=1)
    assert (folder / "mine.mov").read_bytes() == b"precious"


def test_own_clips_join_the_training_set(tmp_path):
    source = tmp_path / "own"
    source.mkdir()
    write_material(tmp_path / "clips", 1, 1, seed=5)
    (tmp_path / "clips" / "train_000.mkv").rename(source / "smoke.mkv")
    write_material(tmp_path / "again", 1, 1, source=source)
    assert (tmp_path / "again" / "yours" / "smoke.mkv").is_file()


def test_held_out_clips_are_kept_apart(tmp_path):
    names = ("train_000", f"{HELD_OUT_PREFIX}_000", "lemur")
    records = [
        {"video_fgr": f"videos/{name}_rgb.mkv", "video_pha": f"videos/{name}_alpha.mkv", "prompt": name}
        for name in names
    ]
    train, held_out = split_manifest(records, tmp_path)
    assert "held_out_000" in held_out.read_text() and "held_out_000" not in train.read_text()
    assert "lemur" in train.read_text()
