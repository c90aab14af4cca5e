"""What alpha is: compositing, value ranges, masks. Tensors in, tensors out; no file, no model."""
