"""Where the page's results are, and which folders the browser may look into."""

import html
import re
import secrets
from pathlib import Path
from urllib.parse import quote

from starlette.routing import Mount, Router
from starlette.staticfiles import StaticFiles

PREFIX = "/shown"


class Workplace:
    """The folder of results, a new one below it for each piece of work, and the folders that the browser may see.

    Args:
        output_dir: folder of results.
    """

    def __init__(self, output_dir):
        self.output_dir = Path(output_dir).resolve()
        self.router = Router()
        self._addresses = {}

    def new_folder(self, kind):
        """Make and return <output_dir>/<kind>_<number>, the number one above those that are there."""
        self.output_dir.mkdir(parents=True, exist_ok=True)
        found = (re.fullmatch(rf"{kind}_(\d+)", path.name) for path in self.output_dir.iterdir())
        number = max((int(one.group(1)) for one in found if one), default=0)
        while True:
            number += 1
            folder = self.output_dir / f"{kind}_{number:03d}"
            try:
                folder.mkdir()
            except FileExistsError:  # made by another tab in this moment
                continue
            return folder

    def address(self, path):
        """The file's address, after which its folder, and no other, can be read under a name that cannot be guessed."""
        path = Path(path).resolve()
        if path.parent not in self._addresses:
            name = secrets.token_urlsafe(16)
            self.router.routes.append(Mount(f"/{name}", StaticFiles(directory=path.parent)))
            self._addresses[path.parent] = f"{PREFIX}/{name}"
        return f"{self._addresses[path.parent]}/{quote(path.name)}"

    def frame(self, page, title):
        """HTML: a page that lies in a folder, inside this one, and a link that opens it by itself."""
        address, title = self.address(page), html.escape(title)
        return (
            f'<p><a href="{address}" target="_blank" rel="noopener">Open the {title} by itself</a> '
            f'<span class="path">{html.escape(str(page))}</span></p><iframe src="{address}" title="{title}"></iframe>'
        )
