#!/usr/bin/env python
"""Turn a folder of RGBA clips, or of colour and matte pairs, into a dataset: `wan-alpha prepare` as a script."""

import sys

from wan_alpha.cli.main import main as wan_alpha


def main(arguments: list[str] | None = None) -> int:
    return wan_alpha(["prepare", *(sys.argv[1:] if arguments is None else arguments)])


if __name__ == "__main__":
    sys.exit(main())
