"""Receive recordings: one file per request, limited in size and number, deleted after a while."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
from pathlib import Path

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from ..data.audio import AUDIO_SUFFIXES

UPLOADS_KEPT = 20  # so many of the largest fit into the server's folder
MOST_UPLOADS = 100  # however small
FORGOTTEN_SECONDS = 300  # until an unused upload is deleted

UPLOAD, PROGRESS = "/gradio_api/upload", "/gradio_api/upload_progress"


class Uploads:
    """The recordings that visitors have uploaded and that are not classified yet.

    Parameters
    ----------
    folder
        Where they are written.
    max_bytes
        Of a recording.
    """

    def __init__(self, folder: Path, max_bytes: int):
        self.folder, self.max_bytes = folder, max_bytes
        self.sizes = {}  # bytes of each file; while it is received, the length of its request
        self.progress = {}  # name and received bytes of each upload whose progress is shown
        self.routes = [
            Route(UPLOAD, self._receive, methods=["POST"]),
            Route(PROGRESS, self._show_progress, methods=["GET"]),
        ]

    def delete(self, file: Path):
        """Delete a recording, which makes room for another."""
        shutil.rmtree(file.parent, ignore_errors=True)
        self.sizes.pop(file.parent.name, None)

    async def _receive(self, request: Request) -> Response:
        """Write the file of a form to a folder of its own, and respond with its path."""
        length = int(request.headers["content-length"])  # `guard` has checked that it is there
        taken = sum(self.sizes.values())
        if len(self.sizes) >= MOST_UPLOADS or taken + length > UPLOADS_KEPT * self.max_bytes:
            async for _ in request.stream():  # a browser reads no response before it has sent all
                pass
            return PlainTextResponse("Too many recordings at the moment. Try again later.", 503)
        folder = self.folder / secrets.token_hex(16)
        upload_id = request.query_params.get("upload_id")  # if the page shows the progress
        self.sizes[folder.name] = length
        file = None
        try:
            folder.mkdir()
            form = _Form(request.headers.get("content-type"), folder)
            try:
                async for chunk in request.stream():
                    form.write(chunk)
                    if upload_id:
                        self.progress[upload_id] = form.name, form.size
                file = form.finish()
            finally:
                form.close()
        except FormParserError as error:
            return PlainTextResponse(f"The form cannot be read: {error}", 400)
        except ClientDisconnect:
            return PlainTextResponse("", 400)  # nobody receives it
        finally:
            self.progress.pop(upload_id, None)
            if file is None:
                self.delete(folder / "recording")
        self.sizes[folder.name] = form.size
        asyncio.get_running_loop().call_later(FORGOTTEN_SECONDS, self.delete, file)
        return JSONResponse([str(file)])

    async def _show_progress(self, request: Request) -> Response:
        """Stream how many bytes of an upload have been received, as gradio does."""
        upload_id = request.query_params.get("upload_id")

        async def events():
            before = 0
            while upload_id in self.progress:
                name, size = self.progress[upload_id]
                if size > before:
                    update = {"msg": "update", "orig_name": name, "chunk_size": size - before}
                    yield f"data: {json.dumps(update)}\n\n"
                before = size
                await asyncio.sleep(0.2)
            yield 'data: {"msg": "done"}\n\n'

        return StreamingResponse(events(), media_type="text/event-stream")


class _Form:
    """The form of an upload: one file, written to a folder while it is received."""

    def __init__(self, content_type: str | None, folder: Path):
        self.folder, self.file, self.complete = folder, None, False
        self.name, self.size = "", 0  # of the file: the visitor's name, and bytes received
        self.field, self.value = b"", b""  # of the header that is being received
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise FormParserError("it is no multipart/form-data with a boundary.")
        callbacks = {
            "on_part_begin": self._part_begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_end": self._end,
        }
        self.write = MultipartParser(boundary, callbacks).write

    def finish(self) -> Path:
        """The path of the file, if all of it was received."""
        if not self.complete or self.file is None:
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
        # Only the suffix is kept: by it, a browser recognises the format.
        suffix = Path(self.name).suffix.lower()
        suffix = suffix if suffix in AUDIO_SUFFIXES else ""
        self.file = (self.folder / f"recording{suffix}").open("xb")

    def _part_data(self, data, start, end):
        self.file.write(data[start:end])
        self.size += end - start

    def _end(self):
        self.complete = True
