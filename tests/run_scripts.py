"""Runs scripts one after the other as if each had been started. Argument: JSON, script -> list of its arguments.

What came of each is written beside that file, <name of the script>.json: exit code and what it printed.
"""

import json
import runpy
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path


def run(script, arguments):
    """Run a script as __main__: {"returncode", "stdout", "stderr"}."""
    former, code = sys.argv, 0
    sys.argv = [str(script), *map(str, arguments)]
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as end:
            code = end.code
        finally:
            sys.argv = former
    return {"returncode": code, "stdout": out.getvalue(), "stderr": err.getvalue()}


if __name__ == "__main__":
    listed = Path(sys.argv[1])
    for script, arguments in json.loads(listed.read_text()).items():
        listed.with_name(f"{Path(script).stem}.json").write_text(json.dumps(run(script, arguments)))
