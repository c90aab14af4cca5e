#!/usr/bin/env python
"""Turn a folder of RGBA clips, or of colour and matte pairs, into a checked dataset with metadata.csv."""

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "source", type=Path, help="folder of X_rgb.* + X_alpha.*, of fgr/ + pha/, or of RGBA files and stills"
    )
    parser.add_argument("output", type=Path, help="dataset folder to write; metadata.csv appears in it")
    parser.add_argument("--skip-bad", action="store_true", help="leave bad rows out and list them, instead of stopping")
    parser.add_argument("--link", action="store_true", help="hard-link pair files instead of copying them")
    parser.add_argument("--workers", type=int, default=2, help="rows worked on at the same time")
    options = parser.parse_args(arguments)

    from rich.progress import Progress

    from wan_alpha.data.prepare import prepare_dataset
    from wan_alpha.errors import WanAlphaError

    try:
        with Progress(transient=True) as bar:
            task = bar.add_task("checking", total=None)

            def show(done: int, total: int, name: str) -> None:
                bar.update(task, completed=done, total=total, description=name)

            report = prepare_dataset(
                options.source,
                options.output,
                skip_bad=options.skip_bad,
                link=options.link,
                workers=options.workers,
                progress=show,
            )
    except WanAlphaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{report.num_rows} rows in {report.metadata_path}, {report.num_without_prompt} of them without a caption")
    for bad in report.skipped:
        print(f"left out row {bad.row} ({bad.file}): {bad.reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
