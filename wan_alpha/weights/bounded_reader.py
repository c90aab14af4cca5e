"""A file of which only so much may be read: what a header claims of itself is not to be believed."""

from wan_alpha.errors import CheckpointError


class BoundedReader:
    """A binary file opened for reading, for parsers of untrusted headers; a context manager.

    Attributes:
        path: the file; size: its bytes; num_bytes_read: bytes read so far; num_bytes_left: what may still be read.
    """

    def __init__(self, path, limit):
        """Open ``path``, of which ``limit`` bytes may be read in all.

        Raises:
            CheckpointError: the file cannot be opened.
        """
        self.path, self.num_bytes_left, self.num_bytes_read = path, limit, 0
        try:
            self._file = open(path, "rb", buffering=0)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be opened ({error.strerror})") from error
        self.size = self._file.seek(0, 2)
        self._file.seek(0)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()

    def seekable(self):
        return True

    def tell(self):
        return self._file.tell()

    def seek(self, offset, whence=0):
        return self._file.seek(offset, whence)

    def read(self, size=-1):
        """At most ``size`` bytes, fewer at the end of the file.

        Raises:
            CheckpointError: more than the limit would have been read in all.
        """
        there = max(0, self.size - self.tell())
        size = there if size is None or size < 0 else min(size, there)
        if size > self.num_bytes_left:
            raise CheckpointError(
                f"{self.path}: its header wants {size} bytes more than any model's needs; the file is damaged or made "
                "to fill the memory: download it again from where it came from"
            )
        parts = []
        while size > 0 and (part := self._file.read(size)):
            parts.append(part)
            size -= len(part)
        data = b"".join(parts)
        self.num_bytes_left -= len(data)
        self.num_bytes_read += len(data)
        return data

    def readline(self):
        """Up to and with the next newline, 4096 bytes at most."""
        start = self.tell()
        piece = self.read(min(4096, max(0, self.num_bytes_left)))
        line = piece[: piece.index(b"\n") + 1] if b"\n" in piece else piece
        self.seek(start + len(line))
        self.num_bytes_left += len(piece) - len(line)
        return line
