"""Hashes of large files, remembered, so that eleven gigabytes of text encoder are read once and not at every start."""

import json
from pathlib import Path

from wan_alpha.data.latent_cache import content_key
from wan_alpha.weights.io import file_sha256, replacing

FILE = "digests.json"


class Digests:
    """SHA-256 of files, kept in ``<folder>/digests.json`` by path, size and time of the last change.

    A file that is not the one that was hashed (another size or time) is hashed again; a list that cannot be read counts
    as empty. `callback` is told as that of ``weights.io.file_sha256``.
    """

    def __init__(self, folder, callback=None):
        self.path, self.callback = Path(folder) / FILE, callback
        try:
            self._known = dict(json.loads(self.path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            self._known = {}

    def file(self, path) -> str:
        """Hash of a file's content, as hex.

        Raises:
            CheckpointError: there is no such file.
        """
        path = Path(path)
        if not path.is_file():
            return file_sha256(path)  # which says what is wrong
        state = path.stat()
        key, mark = str(path.resolve()), [state.st_size, state.st_mtime_ns]
        known = self._known.get(key)
        if known is None or known[:2] != mark:
            known = self._known[key] = [*mark, file_sha256(path, self.callback)]
        return known[2]

    def source(self, path) -> str:
        """Hash of a file's content, or of a folder's: its files' names and contents in order."""
        path = Path(path)
        if path.is_dir():
            return content_key(
                files=[[file.name, self.file(file)] for file in sorted(path.iterdir()) if file.is_file()]
            )
        return self.file(path)

    def derived(self, name, paths, compute) -> str:
        """What was computed of files' content once, for as long as the files are the same.

        Args:
            name: of what it is; paths: the files; compute: () -> str, called where it is not known.
        """
        states = [Path(path).stat() for path in paths]
        key = f"{name} of {', '.join(str(Path(path).resolve()) for path in paths)}"
        mark = [[state.st_size for state in states], [state.st_mtime_ns for state in states]]
        if self._known.get(key, [None])[:2] != mark:
            self._known[key] = [*mark, compute()]
        return self._known[key][2]

    def save(self) -> None:
        """Write the list; it appears whole or not at all."""
        with replacing(self.path) as partial:
            partial.write_text(json.dumps(self._known, indent=1) + "\n", encoding="utf-8")
