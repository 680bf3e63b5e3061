"""What the page of `melgenre.app` is allowed to be asked: an allow-list in front of gradio."""

import time
from contextlib import suppress
from pathlib import Path

from starlette.responses import PlainTextResponse

from .app import FORGOTTEN_SECONDS

UPLOADS_KEPT = 20  # so many of the largest fit into the server's folder
FORM_BYTES = 100_000  # of a request, beside its file

GETS = (
    "/",
    "/config",
    "/theme.css",
    "/favicon.ico",
    "/manifest.json",
    "/gradio_api/app_id",
    "/gradio_api/startup-events",
    "/gradio_api/upload_progress",
    "/gradio_api/queue/data",
)
GETS_BELOW = ("/assets/", "/static/", "/gradio_api/heartbeat/")
POSTS = ("/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/cancel")


def guard(app, folder, max_bytes):
    """ASGI middleware that lets through what the page asks for, and no more than an upload.

    gradio answers much else: it fetches web addresses, and takes a thousand files a request.
    """

    async def guarded(scope, receive, send):
        refused = scope["type"] != "lifespan" and _refusal(scope, folder, max_bytes)
        await (PlainTextResponse(*refused) if refused else app)(scope, receive, send)

    return guarded


def _refusal(scope, folder, max_bytes):
    """Sentence and status for a request that the page does not make; None for those it does."""
    path, headers = scope["path"], dict(scope["headers"])
    upload = path == "/gradio_api/upload"
    if scope.get("method") in ("GET", "HEAD"):
        below = path.startswith((*GETS_BELOW, f"/gradio_api/file={folder}/"))
        return None if path in GETS or below and ".." not in path else ("Not here.", 403)
    if scope.get("method") != "POST" or path not in POSTS:
        return "Not here.", 403
    length = headers.get(b"content-length", b"")
    if not length.isdigit() or b"transfer-encoding" in headers:
        return "How long is it?", 411
    if int(length) > FORM_BYTES + upload * max_bytes:
        return "Too large.", 413
    if upload and _uploaded_bytes(folder) > UPLOADS_KEPT * max_bytes:
        return "Too many recordings at the moment. Try again later.", 503
    return None


def _uploaded_bytes(folder):
    """Size of all uploads; those that were forgotten, or cut off halfway, are deleted."""
    size = 0
    for file in Path(folder).rglob("*"):
        with suppress(FileNotFoundError):  # answered meanwhile
            status = file.stat()
            if file.is_file() and time.time() - status.st_mtime > FORGOTTEN_SECONDS:
                file.unlink()
            size += status.st_size
    return size
