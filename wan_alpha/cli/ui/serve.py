"""``wan-alpha ui``: the page on 127.0.0.1, until Ctrl-C. Nothing else is listened on and nothing is sent anywhere."""

import os
import socket
import tempfile
import threading
import webbrowser
from importlib.util import find_spec

from wan_alpha.errors import ConfigError

HOST = "127.0.0.1"


def serve(recipe):
    """Serve a UiRecipe's page until it is interrupted.

    Raises:
        ConfigError: gradio is not installed, the port is taken, or the output folder is a file.
    """
    check_gradio()
    if recipe.output_dir.exists() and not recipe.output_dir.is_dir():
        raise ConfigError(f"output_dir {recipe.output_dir}: is a file; results need a folder")
    listener = listen(recipe.port)
    with listener, tempfile.TemporaryDirectory(prefix="wan_alpha_ui_") as uploads:
        # Read when gradio is imported.
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": uploads}
        server = build_server(recipe.output_dir, listener.getsockname()[1])
        address = f"http://{HOST}:{listener.getsockname()[1]}/"
        print(f"{address} (Ctrl-C ends it)", flush=True)
        if recipe.open_browser:
            # The socket listens already: a browser that comes before the server is ready waits.
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        server.run(sockets=[listener])


def check_gradio():
    """Refuse to start without gradio.

    Raises:
        ConfigError: it is not installed.
    """
    if find_spec("gradio") is None:
        raise ConfigError('the page needs gradio, which is not installed: pip install -e ".[ui]"')


def listen(port):
    """A socket that listens on 127.0.0.1 alone; port 0 takes any that is free.

    Raises:
        ConfigError: the port is taken or not allowed.
    """
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise ConfigError(
            f"port {port} on {HOST}: {error.strerror}; give another with --port, or --port 0 for any that is free"
        ) from error


def build_server(output_dir, port):
    """The uvicorn server of the page; see serve."""
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI

    from wan_alpha.cli.ui.folders import PREFIX, Workplace
    from wan_alpha.cli.ui.loopback import LoopbackOnly
    from wan_alpha.cli.ui.page import build_page, look

    place = Workplace(output_dir)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.mount(PREFIX, place.router)
    app = gr.mount_gradio_app(
        app, build_page(place), "/", server_name=HOST, server_port=port, footer_links=[], run_history=False,
        show_error=False, ssr_mode=False, enable_monitoring=False, pwa=False, mcp_server=False, **look(),
    )  # fmt: skip
    config = uvicorn.Config(LoopbackOnly(app, port), log_level="warning", timeout_graceful_shutdown=1)
    return uvicorn.Server(config)
