"""The checks of each request before gradio gets it: its host, origin, path, size and time; uploads.

On its own gradio also fetches web addresses, and takes a thousand files per request.
"""

import asyncio
import json
import logging
import re
import secrets
import shutil
import socket
from pathlib import Path

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..data.audio import AUDIO_SUFFIXES
from ..text import printable
from .worker import NO_RECORDING

UPLOADS_KEPT = 20  # so many of the largest fit into the server's folder
MOST_UPLOADS = 100  # however small
FORGOTTEN_SECONDS = 300  # after which an upload is deleted that nobody asked about
FORM_BYTES = 100_000  # of a request, beside its file
LONGEST_NAME = 255  # of a file, in characters
LONGEST_SESSION = 50  # the page's own are shorter
HEAD_BYTES = 32_000  # of a request, before its body

HEAD_SECONDS = 10  # for a request to arrive, before its body
READING_SECONDS = 30  # for a client to read a part of the response
REPLY_SECONDS = 60  # for a request and its response, beside the time for a recording
SLOWEST = 50_000  # bytes per second that a recording is sent with

UPLOAD, PROGRESS = "/gradio_api/upload", "/gradio_api/upload_progress"
FILE, QUESTION, EVENTS = "/gradio_api/file=", "/gradio_api/queue/join", "/gradio_api/queue/data"
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
POSTS = (UPLOAD, QUESTION, "/gradio_api/cancel")

HEADERS = {
    # gradio's own scripts are inline, and evaluate text; none comes from elsewhere.
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "base-uri 'self'; form-action 'self'; object-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
# gradio takes its own address from these, whoever sends them.
UNTRUSTED = (b"x-forwarded-host", b"x-gradio-server")


class Protocol(H11Protocol):
    """HTTP that closes a connection whose client is idle or slow, on purpose or not."""

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


class Uploads:
    """The recordings that visitors have sent and that are not answered yet.

    Parameters
    ----------
    folder : Path
    max_bytes : int
        Of a recording.
    """

    def __init__(self, folder, max_bytes):
        self.folder, self.max_bytes = folder, max_bytes
        self.sizes = {}  # of each file in bytes, as announced while it is on its way
        self.progress = {}  # received bytes of each upload that the page watches
        self.routes = [
            Route(UPLOAD, self._receive, methods=["POST"]),
            Route(PROGRESS, self._show_progress, methods=["GET"]),
        ]

    def delete(self, file):
        """Delete a recording, and make room for another."""
        shutil.rmtree(file.parent, ignore_errors=True)
        self.sizes.pop(file.parent.name, None)

    async def _receive(self, request):
        """Write the one file of a form to a folder of its own; its path, as gradio replies."""
        announced = int(request.headers["content-length"])  # `guard` has seen to it
        taken = sum(self.sizes.values())
        if len(self.sizes) >= MOST_UPLOADS or taken + announced > UPLOADS_KEPT * self.max_bytes:
            async for _ in request.stream():  # a browser reads no reply before it has sent all
                pass
            return PlainTextResponse("Too many recordings at the moment. Try again later.", 503)
        folder, watched = self.folder / secrets.token_hex(16), request.query_params.get("upload_id")
        self.sizes[folder.name] = announced
        file = None
        try:
            folder.mkdir()
            form = _Form(request.headers.get("content-type"), folder)
            try:
                async for chunk in request.stream():
                    form.write(chunk)
                    if watched:
                        self.progress[watched] = form.name, form.size
                file = form.finish()
            finally:
                form.close()
        except FormParserError as error:
            return PlainTextResponse(f"The form cannot be read: {error}", 400)
        except ClientDisconnect:
            return PlainTextResponse("", 400)  # for nobody
        finally:
            self.progress.pop(watched, None)
            if file is None:
                self.delete(folder / "recording")
        self.sizes[folder.name] = form.size
        asyncio.get_running_loop().call_later(FORGOTTEN_SECONDS, self.delete, file)
        return JSONResponse([str(file)])

    async def _show_progress(self, request):
        """How many bytes of an upload have come, as the page shows it."""
        watched = request.query_params.get("upload_id")

        async def events():
            before = 0
            while watched in self.progress:
                name, size = self.progress[watched]
                if size > before:
                    update = {"msg": "update", "orig_name": name, "chunk_size": size - before}
                    yield f"data: {json.dumps(update)}\n\n"
                before = size
                await asyncio.sleep(0.2)
            yield 'data: {"msg": "done"}\n\n'

        return StreamingResponse(events(), media_type="text/event-stream")


class _Form:
    """The form of an upload: one file, written to a folder as it comes."""

    def __init__(self, content_type, folder):
        self.folder, self.file, self.name, self.size, self.whole = folder, None, "", 0, False
        self.field, self.value = b"", b""
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise FormParserError("it is no multipart/form-data with a boundary.")
        names = ("part_begin", "header_field", "header_value", "header_end", "headers_finished",
                 "part_data", "end")  # fmt: skip
        calls = {f"on_{name}": getattr(self, f"_{name}") for name in names}
        self.write = MultipartParser(boundary, calls).write

    def finish(self):
        """The file, whole."""
        if not self.whole or self.file is None:
            raise FormParserError("it ends before its file does.")
        return Path(self.file.name)

    def close(self):
        if self.file is not None:
            self.file.close()

    def _part_begin(self):
        if self.file is not None:
            raise FormParserError("it has more than one file.")
        self.field, self.value = b"", b""

    def _header_field(self, data, start, end):
        self.field += data[start:end]

    def _header_value(self, data, start, end):
        self.value += data[start:end]

    def _header_end(self):
        if self.field.lower() == b"content-disposition":
            name = parse_options_header(self.value)[1].get(b"filename", b"")
            self.name = name.decode(errors="replace")
        self.field, self.value = b"", b""

    def _headers_finished(self):
        # The ending alone, by which a browser knows how to play it.
        suffix = Path(self.name).suffix.lower()
        suffix = suffix if suffix in AUDIO_SUFFIXES else ""
        self.file = (self.folder / f"recording{suffix}").open("xb")

    def _part_data(self, data, start, end):
        self.file.write(data[start:end])
        self.size += end - start

    def _end(self):
        self.whole = True


def guard(app, folder, *, function, hosts, max_bytes, answer_seconds):
    """ASGI middleware that lets through what the page asks for, and no more than an upload.

    Parameters
    ----------
    app : callable
        ASGI.
    folder : Path
        Of the uploads.
    function : int
        The one of gradio's functions that answers a question.
    hosts : set of str
        What the server may be called, beside the address that it is reached by: as
        `server_names` returns them.
    max_bytes : int
        Of a recording.
    answer_seconds : float
        Longest time from a question to its answer.

    Returns
    -------
    callable
        ASGI.
    """
    file_seconds = max_bytes / SLOWEST

    async def guarded(scope, receive, send):
        if scope["type"] == "lifespan":
            return await app(scope, receive, send)
        started = False

        async def send_guarded(message):
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                ours = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *ours]}
            await send(message)

        async def refuse(words, status):
            # Closed, since what follows may be a body that nobody reads.
            reply = PlainTextResponse(words, status, {"Connection": "close"})
            await reply(scope, receive, send_guarded)

        refused = _refusal(scope, folder, hosts, max_bytes)
        if refused:
            return await refuse(*refused)
        path = scope["path"]
        extra = {UPLOAD: file_seconds, PROGRESS: file_seconds, EVENTS: answer_seconds}
        seconds = REPLY_SECONDS + extra.get(path, file_seconds * path.startswith(FILE))
        kept = [header for header in scope["headers"] if header[0] not in UNTRUSTED]
        try:
            async with asyncio.timeout(seconds):
                if path == QUESTION:
                    question = _question(await _body(receive), folder, function)
                    if question is None:
                        return await refuse(NO_RECORDING, 403)
                    receive = _replayed(question, receive)
                await app({**scope, "headers": kept}, receive, send_guarded)
        except Exception as error:
            # A line, since a stranger can bring about many; uvicorn would log a traceback.
            logging.error("%s could not be answered: %r", printable(path[:200]), error)
            if started:
                raise  # so that uvicorn closes the connection
            if isinstance(error, TimeoutError):
                await refuse("The request took too long.", 408)
            else:
                await refuse("The request failed.", 500)

    return guarded


async def _body(receive):
    """The body of a request."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


def _replayed(body, receive):
    """ASGI's `receive` of a request with another body."""
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def replayed():
        return next(messages, None) or await receive()

    return replayed


def _question(body, folder, function):
    """A question with what gradio needs of it, and no more; None if the page does not ask it.

    gradio prints a traceback for what it does not understand, with all that was sent.
    """
    try:
        asked = json.loads(body)
        (song,), session = asked["data"], ascii(asked["session_hash"])[1:-1]
        if song is not None:
            file, name = Path(song["path"]), str(song.get("orig_name") or "")[-LONGEST_NAME:]
            ours = re.fullmatch(
                r"[0-9a-f]{32}/recording(\.\w+)?", f"{file.parent.name}/{file.name}"
            )
            if file.parent.parent != folder or not ours:
                return None
            name = name.encode(errors="replace").decode()  # JSON can hold half a character
            meta = {"_type": "gradio.FileData"}
            song = {"path": str(file), "orig_name": name, "meta": meta}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    question = {"data": [song], "fn_index": function, "session_hash": session[:LONGEST_SESSION]}
    return json.dumps(question).encode()


def server_names(host, allowed=()):
    """What a server may be called, as in the header `Host`, without a port.

    A page of a stranger can give its own name this server's address, and so ask in a visitor's
    name; then the browser still sends that name.

    Parameters
    ----------
    host : str
        That it listens on.
    allowed : iterable of str
        Further names.

    Returns
    -------
    set of str
    """
    own = [host]
    if host in ("0.0.0.0", "::"):  # that is no name, but every address
        own = [socket.gethostname(), f"{socket.gethostname()}.local"]
    names = ["localhost", "127.0.0.1", "::1", *own, *allowed]
    return {_bracketed(name).lower() for name in names}


def _bracketed(address):
    """An address as in a URL, where IPv6 has brackets."""
    return f"[{address.strip('[]')}]" if ":" in address else address


def _refusal(scope, folder, hosts, max_bytes):
    """Sentence and status for a request that the page does not make; None for those it does."""
    path, headers = scope["path"], dict(scope["headers"])
    get = scope.get("method") in ("GET", "HEAD")
    host = headers.get(b"host", b"").decode("latin-1").lower()
    # Behind 0.0.0.0 it may be any address of this machine.
    if re.sub(r":\d+$", "", host) not in {*hosts, _bracketed(scope["server"][0])}:
        return "This host name is not accepted. Its owner can allow it with --allow-host.", 421
    if b"origin" in headers and headers[b"origin"].decode("latin-1").lower() not in (
        f"http://{host}", f"https://{host}",
    ):  # fmt: skip
        return "Requests from other sites are not accepted.", 403
    if headers.get(b"sec-fetch-site", b"none") not in (b"same-origin", b"none"):
        opened = headers.get(b"sec-fetch-mode"), headers.get(b"sec-fetch-dest")
        if not get or path != "/" or opened != (b"navigate", b"document"):
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
