"""What is said of a path where nothing is."""

import re
from pathlib import Path

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)


def no_such(path, wanted: str = "file") -> str:
    """One sentence: nothing is there, and why, where the path is an address.

    Args:
        wanted: what should have been there.
    """
    # An address has lost one of its slashes on the way through Path, so that only its first part tells.
    scheme = next((part for part in Path(path).parts if _SCHEME.match(part)), None)
    if scheme is None:
        return f"{path}: no such {wanted}"
    text = str(path)
    address = re.sub(r"^([a-z][a-z0-9+.-]+:)/(?!/)", r"\1//", text, flags=re.IGNORECASE)
    return f"{address}: no such {wanted}; addresses and protocols are not followed, give the path of a file here"
