"""Filter requests before gradio receives them: only the page's own, limited in size and time.

Without this filter, gradio downloads web addresses and accepts a thousand files per request.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from starlette.responses import PlainTextResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..text import printable
from .uploads import PROGRESS, UPLOAD
from .worker import NO_RECORDING

FORM_BYTES = 100_000  # of a request, beside its file
LONGEST_NAME = 255  # of a file, in characters
LONGEST_SESSION = 50  # the page's own are shorter
HEAD_BYTES = 32_000  # of a request, before its body

HEAD_SECONDS = 10  # for a request to arrive, before its body
READING_SECONDS = 30  # for a client to read a part of the response
REPLY_SECONDS = 60  # for a request and its response, beside the time for a recording
SLOWEST = 50_000  # bytes per second of an upload or download

FILE, JOIN, EVENTS = "/gradio_api/file=", "/gradio_api/queue/join", "/gradio_api/queue/data"
GETS = (
    "/",
    "/config",
    "/theme.css",
    "/favicon.ico",
    "/manifest.json",
    "/gradio_api/app_id",
    "/gradio_api/startup-events",
    PROGRESS,
    EVENTS,
)
GETS_BELOW = ("/assets/", "/static/")
POSTS = (UPLOAD, JOIN, "/gradio_api/cancel")

HEADERS = {
    # The scripts of gradio are inline and use eval; none comes from another site.
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "base-uri 'self'; form-action 'self'; object-src 'none'; frame-ancestors {ancestors}",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# From these headers gradio takes its own address, although any visitor can send them.
UNTRUSTED = (b"x-forwarded-host", b"x-gradio-server")


App = Callable[[dict, Callable, Callable], Awaitable[None]]
"""An ASGI application: its arguments are the scope, `receive` and `send`."""


class Protocol(H11Protocol):
    """HTTP that closes the connection of a client that is idle or too slow."""

    def connection_made(self, transport):
        super().connection_made(transport)
        self.head_due = self.loop.call_later(HEAD_SECONDS, transport.abort)
        self.reading_due = None

    def data_received(self, data):
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self.head_due.cancel()
        elif self.head_due.cancelled():  # the next request on this connection
            self.head_due = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def connection_lost(self, exc):
        self.head_due.cancel()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self):
        super().pause_writing()
        self.reading_due = self.loop.call_later(READING_SECONDS, self.transport.abort)

    def resume_writing(self):
        super().resume_writing()
        if self.reading_due is not None:
            self.reading_due.cancel()
            self.reading_due = None


def guard(
    app: App,
    folder: Path,
    *,
    function: int,
    hosts: set[str],
    frame_ancestors: Iterable[str] = (),
    max_bytes: int,
    result_seconds: float,
) -> App:
    """ASGI middleware that allows only the requests that the page itself makes.

    Parameters
    ----------
    folder
        Of the uploads.
    function
        The number of gradio's function that classifies a recording.
    hosts
        Accepted host names, beside the address by which the server is reached: see
        `server_names`.
    frame_ancestors
        As for `melgenre.app.page.serve`.
    max_bytes
        Of a recording.
    result_seconds
        Longest time from a request to classify a recording to its result.
    """
    file_seconds = max_bytes / SLOWEST
    frame_ancestors = tuple(frame_ancestors)
    ours = _headers(frame_ancestors)

    async def guarded(scope, receive, send):
        if scope["type"] == "lifespan":
            return await app(scope, receive, send)
        started = False

        async def send_guarded(message):
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": [*message.get("headers", []), *ours]}
            await send(message)

        async def refuse(words, status):
            # The connection is closed, because the body of the request is not read.
            response = PlainTextResponse(words, status, {"Connection": "close"})
            await response(scope, receive, send_guarded)

        refused = _refusal(scope, folder, hosts, max_bytes, framed=bool(frame_ancestors))
        if refused:
            return await refuse(*refused)
        path = scope["path"]
        extra = {UPLOAD: file_seconds, PROGRESS: file_seconds, EVENTS: result_seconds}
        seconds = REPLY_SECONDS + extra.get(path, file_seconds * path.startswith(FILE))
        kept = [header for header in scope["headers"] if header[0] not in UNTRUSTED]
        try:
            async with asyncio.timeout(seconds):
                if path == JOIN:
                    body = _join_request(await _read_body(receive), folder, function)
                    if body is None:
                        return await refuse(NO_RECORDING, 403)
                    receive = _with_body(body, receive)
                await app({**scope, "headers": kept}, receive, send_guarded)
        except Exception as error:  # of any type: a visitor chooses what gradio receives
            # One line, because a visitor can cause many; uvicorn would log a traceback.
            logging.error("The request for %s failed: %r", printable(path[:200]), error)
            if started:
                raise  # so that uvicorn closes the connection
            if isinstance(error, TimeoutError):
                await refuse("The request took too long.", 408)
            else:
                await refuse("The request failed.", 500)

    return guarded


def _headers(frame_ancestors):
    """The headers of each response. The browser enforces who may show the page in a frame."""
    ancestors = " ".join(frame_ancestors) or "'none'"
    headers = {name: value.format(ancestors=ancestors) for name, value in HEADERS.items()}
    if not frame_ancestors:  # this older header cannot name sites
        headers["X-Frame-Options"] = "DENY"
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


async def _read_body(receive):
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


def _with_body(body, receive):
    """The `receive` of a request whose body is replaced."""
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive_body():
        return next(messages, None) or await receive()

    return receive_body


def _join_request(body, folder, function):
    """A request to classify a recording, reduced to the fields that gradio needs.

    None if it is not a request of the page: for such a request, gradio would print a traceback
    with all that was sent.
    """
    try:
        request = json.loads(body)
        (song,), session = request["data"], ascii(request["session_hash"])[1:-1]
        if song is not None:
            file, name = Path(song["path"]), str(song.get("orig_name") or "")[-LONGEST_NAME:]
            ours = re.fullmatch(
                r"[0-9a-f]{32}/recording(\.\w+)?", f"{file.parent.name}/{file.name}"
            )
            if file.parent.parent != folder or not ours:
                return None
            name = name.encode(errors="replace").decode()  # JSON can hold lone surrogates
            meta = {"_type": "gradio.FileData"}
            song = {"path": str(file), "orig_name": name, "meta": meta}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    request = {"data": [song], "fn_index": function, "session_hash": session[:LONGEST_SESSION]}
    return json.dumps(request).encode()


def server_names(host: str, allowed: Iterable[str] = ()) -> set[str]:
    """The accepted values of the header `Host`, without a port.

    They protect against DNS rebinding: another site can make its own name point to this server,
    and so send requests from a visitor's browser; but the browser still sends that site's name.

    Parameters
    ----------
    host
        The address that the server listens on.
    allowed
        Further names.
    """
    own = [host]
    if host in ("0.0.0.0", "::"):  # this is no name: it stands for all addresses
        own = [socket.gethostname(), f"{socket.gethostname()}.local"]
    names = ["localhost", "127.0.0.1", "::1", *own, *allowed]
    return {_bracketed(name).lower() for name in names}


def _bracketed(address):
    """An address as in a URL, where IPv6 has brackets."""
    return f"[{address.strip('[]')}]" if ":" in address else address


def _refusal(scope, folder, hosts, max_bytes, *, framed):
    """The reason and the status, if a request is refused; None if it is allowed."""
    path, headers = scope["path"], dict(scope["headers"])
    get = scope.get("method") in ("GET", "HEAD")
    host = headers.get(b"host", b"").decode("latin-1").lower()
    # If the server listens on 0.0.0.0, this is any address of the machine.
    if re.sub(r":\d+$", "", host) not in {*hosts, _bracketed(scope["server"][0])}:
        return "This host name is not accepted. Its owner can allow it with --allow-host.", 421
    origin, own = headers.get(b"origin"), (f"http://{host}", f"https://{host}")
    if origin is not None and origin.decode("latin-1").lower() not in own:
        return "Requests from other sites are not accepted.", 403
    if headers.get(b"sec-fetch-site", b"none") not in (b"same-origin", b"none"):
        opened = headers.get(b"sec-fetch-mode"), headers.get(b"sec-fetch-dest")
        places = (b"document", b"iframe") if framed else (b"document",)
        if not get or path != "/" or opened not in [(b"navigate", place) for place in places]:
            return "Requests from other sites are not accepted.", 403
    length = headers.get(b"content-length", b"")
    if get:
        if length not in (b"", b"0") or b"transfer-encoding" in headers:
            return "A GET request must have no body.", 413
        below = path.startswith((*GETS_BELOW, f"{FILE}{folder}/"))
        return None if path in GETS or below and ".." not in path else ("Not here.", 403)
    if scope.get("method") != "POST" or path not in POSTS:
        return "Not here.", 403
    if not length.isdigit() or b"transfer-encoding" in headers:
        return "The request must state its length.", 411
    if int(length) > FORM_BYTES + (path == UPLOAD) * max_bytes:
        return "Too large.", 413
    return None
