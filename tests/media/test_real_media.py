"""Real files from elsewhere; what each holds is in the NOTICE.md beside it."""

import numpy as np

from wan_alpha.media.probe import probe
from wan_alpha.media.read import iter_frames, read_matte, read_rgba


def test_bear_keeps_its_vp9_alpha(real_media):
    info = probe(real_media / "bear_vp9_alpha.webm")
    assert (info.width, info.height, info.num_frames, info.fps) == (320, 240, 82, 30)
    assert info.has_alpha and info.decoder == "libvpx-vp9"
    clip = read_rgba(info.path)
    assert clip.shape == (82, 240, 320, 4)
    assert (clip[..., 3] == 68).all()
    assert clip[..., :3].std() > 20
    assert np.array_equal(read_rgba(info.path, 60, 3), clip[60:63])


def test_lemur_keeps_every_alpha_level(real_media):
    info = probe(real_media / "lemur_cutout.png")
    assert info.is_still and info.has_alpha
    still = read_rgba(info.path)
    assert still.shape == (1, 440, 680, 4)
    assert len(np.unique(still[..., 3])) == 256


def test_squirrel_is_a_matte_at_full_size(squirrel):
    info = probe(squirrel)
    assert (info.width, info.height, info.num_frames) == (832, 480, 81)
    assert info.fps == 16.667
    matte = read_matte(squirrel, 40, 2)
    assert matte.shape == (2, 480, 832)
    assert matte.min() == 0 and matte.max() > 240
    assert sum(frame.shape == (480, 832) for frame in iter_frames(squirrel, "gray")) == 81
