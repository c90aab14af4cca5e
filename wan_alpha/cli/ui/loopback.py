"""What keeps the page to this machine: whose requests are answered, and what the browser may load."""

from starlette.responses import PlainTextResponse

_NAMES = ("127.0.0.1", "localhost")
# Nothing but what this server gives; gradio's page needs inline scripts and evaluates its own templates.
_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'self'; base-uri 'self'; form-action 'self'"
)


class LoopbackOnly:
    """ASGI middleware: refuses other hosts' names and other sites' requests, and forbids the page the network.

    The server listens on 127.0.0.1 alone. A website in the same browser can still send requests there; its own name
    in Host (DNS rebinding) or in Origin gives it away.

    Args:
        app: what it stands before; port: the server's.
    """

    def __init__(self, app, port):
        self._app = app
        self._hosts = {f"{name}:{port}" for name in _NAMES} | (set(_NAMES) if port == 80 else set())

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        origin = headers.get("origin")
        is_own = origin is None or origin in {f"http://{host}" for host in self._hosts}
        if headers.get("host") not in self._hosts or not is_own or scope["type"] != "http":
            await PlainTextResponse("only this machine's own page is served here", 403)(scope, receive, send)
            return

        async def send_with_policy(message):
            if message["type"] == "http.response.start":
                policy = [(b"content-security-policy", _POLICY.encode()), (b"referrer-policy", b"no-referrer")]
                message = message | {"headers": [*message.get("headers", []), *policy]}
            await send(message)

        await self._app(scope, receive, send_with_policy)
