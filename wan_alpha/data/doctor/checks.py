"""The names of everything that doctor can find, and what each means."""

from wan_alpha.data.doctor import colour_checks, dataset_checks, file_checks, matte_checks

# What keeps a row from being looked at at all; no function of its own finds these.
_BEFORE_CHECKS = {
    "path_outside": "The manifest names a file outside the dataset's folder.",
    "bad_row": "The manifest's row cannot be used: no file named or none there, an unknown type.",
    "unreadable": "A file is empty, cut short, damaged, or holds no video.",
    "limits": "A size or length beyond the limits.",
}
_FUNCTIONS = (
    *file_checks.CHECKS, *matte_checks.CHECKS, *matte_checks.EDGE_CHECKS, *colour_checks.CHECKS, *dataset_checks.CHECKS,
)  # fmt: skip

# Name -> one sentence.
CHECKS = _BEFORE_CHECKS | {check.__name__: check.__doc__.splitlines()[0] for check in _FUNCTIONS}
CHECK_NAMES = tuple(CHECKS)
