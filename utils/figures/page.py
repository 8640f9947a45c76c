"""What the pages in the browser share: the picture with its mask and clicks, and how a page is served."""

import atexit
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from utils.errors import UserError
from utils.figures.overlays import draw_points, overlay
from utils.inputs.clicks import Click
from utils.rows.row import Segmentation

VIEW_SIZE = 1024  # longer side in pixels of what the browser shows; files have the picture's size
PLAIN = {"interactive": False, "show_label": False, "buttons": []}  # a picture without the browser's tools
# One event at a time: all tabs share the models.
QUEUE = {"concurrency_id": "models", "concurrency_limit": 1, "trigger_mode": "multiple", "api_visibility": "private"}
CSS = "#picture button { cursor: crosshair } #picture img { max-height: 65vh }"


def view_size(image: np.ndarray) -> tuple[int, int]:
    """(width, height) at which a picture (H, W, 3) is sent to the browser; small ones are enlarged."""
    height, width = image.shape[:2]
    scale = VIEW_SIZE / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def pixel_under(index: Sequence[float], image: np.ndarray) -> tuple[int, int]:
    """Pixel (x, y) of the view -> pixel (x, y) of the picture."""
    sizes = zip(index, view_size(image), image.shape[1::-1], strict=True)
    x, y = (min(int((place + 0.5) * own / shown), own - 1) for place, shown, own in sizes)
    return x, y


def draw_view(
    image: np.ndarray, found: Segmentation | None, clicks: Sequence[Click] = (), opacity: float = 0.5
) -> np.ndarray:
    """Picture with mask and clicks at view_size: uint8 (h, w, 3)."""
    size = view_size(image)
    view = np.array(Image.fromarray(image).resize(size))
    if found:
        ids = np.array(Image.fromarray(found.ids).resize(size, Image.Resampling.NEAREST))
        view = overlay(view, ids, found.classes, opacity)
    points = [((x + 0.5) * size[0] / image.shape[1], (y + 0.5) * size[1] / image.shape[0]) for x, y, _ in clicks]
    return draw_points(view, points, [label for *_, label in clicks])


def serve(build: Callable[[str], object], host: str, port: int, max_pixels: int, css: str = "", js: str = "") -> None:
    """Serve the page, a gradio.Blocks, until the script is stopped. Raises UserError.

    build: gets a folder for the page's files, which is deleted at the end; max_pixels: larger pictures are rejected.
    """
    Image.MAX_IMAGE_PIXELS = max_pixels // 2  # Pillow rejects pictures with more than twice this
    os.environ["GRADIO_TEMP_DIR"] = folder = tempfile.mkdtemp()  # read when gradio is imported
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        import gradio as gr
    except ImportError as error:
        raise UserError(f"the page needs Gradio ({error}): pip install -r requirements-demo.txt") from error
    page = build(folder)
    options = {"share": False, "quiet": True, "show_error": True, "prevent_thread_lock": True}
    options |= {"max_file_size": "100mb", "run_history": False, "footer_links": [], "css": CSS + css, "js": js or None}
    options |= {"theme": gr.themes.Default(font=["system-ui", "sans-serif"])}
    options |= {"state_session_capacity": 16}  # tabs; each keeps a picture
    try:
        page.launch(server_name=host, server_port=port, **options)
    except OSError as error:
        raise UserError(f"{host}:{port} is taken or cannot be used; try --PORT={port % 65535 + 1}") from error
    print(f"open {page.local_url} in a browser; Ctrl+C stops it", flush=True)
    try:
        while True:
            time.sleep(1)
    finally:
        page.close(verbose=False)
