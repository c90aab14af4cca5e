"""Files <-> straight RGBA frames, (T, H, W, 4) uint8. The only place that runs ffmpeg."""
