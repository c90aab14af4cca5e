"""Weight files that are damaged or made to harm, written byte by byte."""

import io
import json
import pickle
import struct
import zipfile


def safetensors_bytes(header, data=b""):
    """A file of that header: a dict, or the text itself."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor_entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


class RunsCode:
    """Unpickled, it would create a file."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return (exec, (f"open({self.trace!r}, 'w')",))


def zip_bytes(entries, compression=zipfile.ZIP_STORED):
    """A zip file of name -> bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def pickle_with_code(trace):
    """What torch.save would write of a dict with code in it."""
    return zip_bytes({"a/data.pkl": pickle.dumps({"weight": RunsCode(trace)}, protocol=2), "a/version": b"3\n"})


def zip_bomb(num_bytes=50_000_000):
    """A pickle that is small on the disk and large in memory."""
    return zip_bytes({"a/data.pkl": bytes(num_bytes), "a/version": b"3\n"}, zipfile.ZIP_DEFLATED)
