"""Serve the page on a Space. Spaces set SPACE_HOST, and show a Space's page in a frame."""

import os

from melgenre.app.page import serve
from melgenre.inference.model_folder import default_model

if __name__ == "__main__":  # the process that classifies imports this file too
    serve(
        default_model(),
        host="0.0.0.0",
        port=int(os.environ.get("GRADIO_SERVER_PORT", 7860)),
        allow_hosts=os.environ["SPACE_HOST"].split(","),  # a Space can have several
        frame_ancestors=["https://huggingface.co"],
    )
