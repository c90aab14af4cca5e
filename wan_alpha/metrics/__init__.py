"""How good an RGBA clip is: image quality, video matting, transparency. Clips in [0, 1], scores in float64."""
