"""What a file or folder is, from headers and shapes: no weight is read, nothing is run, no torch is needed."""
