"""A page in the browser: pick a picture and a model, click or type, see the mask.

    pip install -r requirements-demo.txt
    python demo.py                              # then open http://127.0.0.1:7860; Ctrl+C stops it
    python demo.py --CHECKPOINTS=checkpoints/synthetic --PORT=8000

All models can be chosen; for one without a checkpoint the page shows the command that trains it. Pictures stay on this
machine: the page is served to this machine only, loads nothing from the network, and uploads are deleted at the end.
"""

import atexit
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from utils.config import require_between, run_script

import numpy as np
from PIL import Image

from utils.device import pick_device
from utils.errors import UserError
from utils.figures.overlays import cutout, draw_points, overlay, save_mask, save_picture
from utils.inputs.clicks import Click
from utils.inputs.layouts import list_pictures
from utils.inputs.pictures import read_image
from utils.rows import Declared, best_row, find_rows, load_row
from utils.rows.row import Row, Segment, Segmentation

CHECKPOINTS = "checkpoints"  # where the training scripts wrote
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"
HOST = "127.0.0.1"  # "0.0.0.0" opens the page to the network
PORT = 7860
MAX_PIXELS = 50_000_000  # larger pictures are rejected before decoding
VIEW_SIZE = 1024  # longer side in pixels of what the browser shows; files have the picture's size


def main() -> None:
    require_between(globals(), 1, 65535, "PORT")
    pick_device(DEVICE)  # fail here, not on the page
    serve(build_page, HOST, PORT, MAX_PIXELS, css=CSS)


PLAIN: dict = {"interactive": False, "show_label": False, "buttons": []}  # a picture without the browser's tools
# One event at a time: all tabs share the models.
QUEUE: dict = {"concurrency_id": "models", "concurrency_limit": 1, "trigger_mode": "multiple"}
QUEUE |= {"api_visibility": "private"}
PICTURE_CSS: str = "#picture button { cursor: crosshair } #picture img { max-height: 65vh }"
CSS: str = """
.grid-wrap { min-height: 0 !important; max-height: none !important; padding: 0 !important }
.grid-wrap button { aspect-ratio: 3 / 2; height: auto }
"""


# ---------------------------------------------------------------------------------------------- models


@dataclass
class Session:
    """State of one browser tab."""

    image: np.ndarray | None = None  # uint8 (H, W, 3)
    name: str = ""
    clicks: list[Click] = field(default_factory=list)
    opened: dict[str, Segment] = field(default_factory=dict)  # row -> what its open() returned for the picture


@cache
def known_rows() -> dict[str, Declared]:
    return find_rows(CHECKPOINTS)


@cache
def load(name: str) -> Row:
    return load_row(name, CHECKPOINTS, pick_device(DEVICE), precision="auto")


def takes(model: str, prompt: str) -> bool:
    """Whether a row takes this prompt, "click" or "text"."""
    return known_rows()[model].kind.prompt == prompt


def find_mask(session: Session, model: str, text: str, clicks: Sequence[Click]) -> tuple[Segmentation | None, str]:
    """A row's prediction for the session's picture and a line about it; or None and the reason.

    text, clicks: used by rows with that prompt; with an empty text a row by text predicts its classes.
    """
    if takes(model, "click") and not clicks:
        return None, "Click on the thing to cut out."
    try:
        if model not in session.opened:
            session.opened[model] = load(model).open(session.image)
        found = session.opened[model](clicks if takes(model, "click") else (), text if takes(model, "text") else "")
        return found, found.describe()
    except UserError as error:
        return None, f"⚠️ {error}"


# ------------------------------------------------------------------------------------------------ view


def show_mask(
    session: Session, model: str, text: str, clicks: list[Click], folder: str
) -> tuple[np.ndarray | None, str, tuple[Path, Path] | None]:
    """What the page shows: the view, a line of text, and two files to download, mask and cut-out.

    Stores the clicks in the session unless the row rejects them.
    """
    if session.image is None:
        return None, "Pick a picture first.", None
    found, line = find_mask(session, model, text, clicks)
    if found or not clicks:
        session.clicks = clicks
    view = draw_view(session.image, found, session.clicks if takes(model, "click") else ())
    if not found:
        return view, line, None
    place = Path(tempfile.mkdtemp(dir=folder))  # a new URL for every mask
    name = session.name[:50]  # a file's name has 255 bytes at most
    files = place / f"{name}_mask.png", place / f"{name}_cutout.png"
    save_mask(found.ids, files[0], found.classes)
    save_picture(cutout(session.image, found.ids, found.classes.first), files[1])
    return view, line, files


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


def draw_view(image: np.ndarray, found: Segmentation | None, clicks: Sequence[Click] = ()) -> np.ndarray:
    """Picture with mask and clicks at view_size: uint8 (h, w, 3)."""
    size = view_size(image)
    view = np.array(Image.fromarray(image).resize(size))
    if found:
        ids = np.array(Image.fromarray(found.ids).resize(size, Image.Resampling.NEAREST))
        view = overlay(view, ids, found.classes)
    points = [((x + 0.5) * size[0] / image.shape[1], (y + 0.5) * size[1] / image.shape[0]) for x, y, _ in clicks]
    return draw_points(view, points, [label for *_, label in clicks])


# ------------------------------------------------------------------------------------------------ page


def build_page(folder: str):
    """The gradio.Blocks; downloads are written below `folder`. Raises UserError if no row has a checkpoint."""
    import gradio as gr

    # A click or a text switches to the first row with that prompt.
    by_click, by_text = (next(name for name in known_rows() if takes(name, prompt)) for prompt in ("click", "text"))
    to_try = list_pictures(Path(__file__).parent / "images" / "examples")
    grid = {"columns": 3, "height": "auto", "allow_preview": False}
    with gr.Blocks(title="Segment a pet", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        session = gr.State(Session())
        gr.Markdown("# Segment a pet\nPick a picture and a model, click on a thing, or type what to look for.")
        with gr.Row():
            with gr.Column(scale=3):
                file = gr.File(label="Picture", show_label=False, file_types=["image"], height=130, elem_id="file")
                examples = gr.Gallery(to_try, elem_id="examples", **grid, **PLAIN)
                picture = gr.Image(visible=False, elem_id="picture", format="jpeg", **PLAIN)
                message = gr.Markdown("Pick a picture to start.", elem_id="message")
            with gr.Column(scale=2, min_width=300):
                model = gr.Radio(list(known_rows()), value=best_row(CHECKPOINTS), label="Model")
                sign = gr.Radio([("on the thing (+)", 1), ("not part of it (−)", 0)], value=1, label="A click is")
                with gr.Row():
                    undo = gr.Button("Undo", size="md", min_width=80)
                    clear = gr.Button("Clear", size="md", min_width=80)
                info = "Leave empty for the classes. First use downloads 600 MB of weights."
                text = gr.Textbox(label=f"Text for {by_text}", info=info, placeholder="type and press Enter")
                with gr.Row():
                    downloads = [
                        gr.DownloadButton(label, interactive=False, min_width=140)
                        for label in ("Download the mask", "Download the cut-out")
                    ]
                side_by_side = gr.Button("All models side by side", variant="primary")
        everything = gr.Gallery(visible=False, elem_id="all", format="jpeg", object_fit="contain", **grid, **PLAIN)

        def answer(tab: Session, name: str, typed: str, clicks: list[Click]) -> dict:
            view, line, files = show_mask(tab, name, typed, clicks, folder)
            changes = {session: tab, model: name, message: line, picture: gr.Image(view, visible=view is not None)}
            for button, path in zip(downloads, files or (None, None), strict=True):
                changes[button] = gr.DownloadButton(value=path, interactive=path is not None)
            return changes

        def pick(path: str, name: str, typed: str) -> dict:
            try:
                tab = Session(read_image(path), Path(path).stem)
                changes = answer(tab, name, typed, []) | {everything: gr.Gallery(visible=False)}
            except UserError as error:
                changes = {message: f"⚠️ {error}".replace(str(path), Path(path).name)}  # the previous picture stays
            return changes | {file: None}

        def pick_example(name: str, typed: str, event: gr.SelectData) -> dict:
            return pick(to_try[event.index], name, typed)

        def clicked(tab: Session, name: str, clicks: list[Click]) -> dict:
            return answer(tab, name if takes(name, "click") else by_click, "", clicks)

        def click(tab: Session, name: str, label: int, event: gr.SelectData) -> dict:
            # There is no picture if the script was restarted while the tab was open.
            new = [] if tab.image is None else [(*pixel_under(event.index, tab.image), label)]
            return clicked(tab, name, [*tab.clicks, *new])

        downloading = gr.Progress(track_tqdm=True)

        def show(tab: Session, name: str, typed: str, progress=downloading) -> dict:
            return answer(tab, name, typed, tab.clicks)

        def compare(tab: Session) -> dict:
            if tab.image is None:
                return {message: "Pick a picture first."}
            views = []
            for name in known_rows():
                found, line = find_mask(tab, name, "", tab.clicks)
                clicks = tab.clicks if takes(name, "click") else ()
                views.append((draw_view(tab.image, found, clicks), f"{name} – {line}"))
            return {everything: gr.Gallery(views, visible=True)}

        outputs = [session, file, picture, message, model, *downloads, everything]
        queue = QUEUE | {"outputs": outputs, "show_progress_on": message}
        file.upload(pick, [file, model, text], **queue)
        examples.select(pick_example, [model, text], **queue)
        model.input(show, [session, model, text], **queue)
        text.submit(show, [session, gr.State(by_text), text], **queue)
        side_by_side.click(compare, session, **queue)
        picture.select(click, [session, model, sign], **queue)
        undo.click(lambda tab, name: clicked(tab, name, tab.clicks[:-1]), [session, model], **queue)
        clear.click(lambda tab, name: clicked(tab, name, []), [session, model], **queue)
    return page


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
    options = {"share": False, "quiet": True, "show_error": True, "prevent_thread_lock": True, "run_history": False}
    options |= {"max_file_size": "100mb", "footer_links": [], "css": PICTURE_CSS + css, "js": js or None}
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


if __name__ == "__main__":
    run_script(main)
