"""A page in the browser: pick a picture, choose a model, click or type, and see the mask.

    pip install -r requirements-demo.txt
    python demo.py                              # then open http://127.0.0.1:7860; Ctrl+C stops it
    python demo.py --CHECKPOINTS=checkpoints/synthetic --PORT=8000

Offers the models whose checkpoints exist, the best one chosen, and says how to get the others. Pictures stay on this
machine: the page listens to this machine only, loads nothing from elsewhere, and what was uploaded is deleted when the
script ends.
"""

import atexit
import html
import os
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from utils.config import require_between, require_choice, run_script

import numpy as np
from PIL import Image

from models.clipseg import HUB_ID
from utils.checkpoint import weights_file
from utils.device import PRECISIONS, pick_device
from utils.errors import UserError
from utils.figures.overlays import cutout, draw_points, overlay, save_mask, save_picture
from utils.inputs.clicks import Click
from utils.inputs.layouts import list_pictures
from utils.inputs.pictures import read_image
from utils.rows import Declared, best_row, find_rows, load_row
from utils.rows.row import Row, Segment, Segmentation

# models
CHECKPOINTS = "checkpoints"  # where the training scripts wrote
CLIPSEG = HUB_ID  # hub id or folder of its weights, which are loaded when they are first asked for
THRESHOLD = 0.3  # of a text's score, 0 to 1
PRECISION = "auto"  # "bf16", "fp32"; auto is bf16 where the hardware multiplies it
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"
# page
HOST = "127.0.0.1"  # "0.0.0.0" lets everybody on the network in
PORT = 7860
MAX_PIXELS = 50_000_000  # larger pictures are refused before they are decoded
TO_TRY = str(Path(__file__).parent / "images" / "examples")  # folder of pictures that the page offers
VIEW_SIZE = 1024  # pixels of the longer side, as sent to the browser; masks have the picture's own size


def main() -> None:
    require_choice("PRECISION", PRECISION, PRECISIONS)
    require_between(globals(), 1, 65535, "PORT")
    pick_device(DEVICE)  # a wrong one is an error here, not on the page
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow refuses pictures of more than twice this
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # A request in progress may write into it until its thread ends.
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["GRADIO_TEMP_DIR"] = folder  # read when gradio is imported
        try:
            import gradio as gr
        except ImportError as error:
            raise UserError(f"the page needs Gradio ({error}): pip install -r requirements-demo.txt") from error
        page = build_page(folder)
        options = {"share": False, "quiet": True, "show_error": True, "prevent_thread_lock": True}
        options |= {"max_file_size": "100mb", "run_history": False, "footer_links": []}
        options |= {"theme": gr.themes.Default(font=["system-ui", "sans-serif"])}
        options |= {"css": CSS}
        options |= {"state_session_capacity": 16}  # tabs, each of which holds a picture
        try:
            page.launch(server_name=HOST, server_port=PORT, **options)
        except OSError as error:
            raise UserError(f"{HOST}:{PORT} is taken or cannot be used; try --PORT={PORT % 65535 + 1}") from error
        print(f"open {page.local_url} in a browser; Ctrl+C stops it", flush=True)
        try:
            while True:
                time.sleep(1)
        finally:
            page.close(verbose=False)


CSS = """
#picture button { cursor: crosshair } #picture img { max-height: 65vh }
#examples .grid-wrap { min-height: 0; max-height: none; padding: 0 }
#examples button { aspect-ratio: 3 / 2; height: auto }
#all { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 12px }
@media (max-width: 640px) { #all { grid-template-columns: repeat(2, minmax(0, 1fr)) } }
"""


# ---------------------------------------------------------------------------------------------- models


@dataclass
class Session:
    """What one browser tab has open; every tab has its own."""

    image: np.ndarray | None = None  # uint8 (H, W, 3)
    name: str = ""
    clicks: list[Click] = field(default_factory=list)
    opened: dict[str, Segment] = field(default_factory=dict)  # row -> the picture as it has opened it


@cache
def known_rows() -> dict[str, Declared]:
    return find_rows(CHECKPOINTS)


def offered_rows() -> tuple[dict[str, Declared], dict[str, str]]:
    """Rows whose checkpoints exist or whose weights the hub has, and the others with what to do about them."""
    offered, missing = {}, {}
    for name, row in known_rows().items():
        if row.hub_id or weights_file(Path(CHECKPOINTS) / row.folder).exists():
            offered[name] = row
            continue
        try:
            load(name)
        except UserError as error:
            missing[name] = str(error)
    return offered, missing


@cache
def load(name: str) -> Row:
    options = {"precision": PRECISION, "hub_id": CLIPSEG, "threshold": THRESHOLD}
    return load_row(name, CHECKPOINTS, pick_device(DEVICE), **options)


def open_picture(path: str | Path) -> Session:
    """Raises UserError if the file is no picture or is absurdly large."""
    path = Path(path)
    try:
        return Session(read_image(path), path.stem)
    except UserError as error:
        if isinstance(error.__cause__, Image.DecompressionBombError):
            raise UserError(f"{path.name} has more than {MAX_PIXELS / 1e6:g} million pixels (MAX_PIXELS)") from error
        raise UserError(str(error).replace(str(path), path.name)) from error


def find_mask(
    session: Session, model: str | None, text: str, clicks: Sequence[Click]
) -> tuple[Segmentation | None, str]:
    """What a row makes of the session's picture and a line about it; or None and why there is none.

    text and clicks: for a row with that prompt; without a text a row by text looks for the classes.
    """
    if not model:
        return None, "Choose a model."
    try:
        row = load(model)
        if row.prompt == "click" and not clicks:
            return None, "Click on the thing to cut out."
        if model not in session.opened:
            session.opened[model] = row.open(session.image)
        asked = {"click": (clicks, ""), "text": ((), text)}.get(row.prompt, ((), ""))
        found = session.opened[model](*asked)
        return found, found.describe()
    except UserError as error:
        return None, hint(model, str(error))


def hint(model: str, reason: str) -> str:
    """Why there is no mask, in one line; a long reason is unfolded by a click on its command."""
    command = re.search("`((?:hf|python) .+?)`", reason)
    if len(reason) < 120 or not command:
        return f"⚠️ {reason}"
    line = f"⚠️ {model} needs its weights: <code>{command[1]}</code>"
    return f"<details><summary>{line}</summary><p>{html.escape(reason)}</p></details>"


# ------------------------------------------------------------------------------------------------ view


def show_mask(
    session: Session, model: str | None, text: str, clicks: list[Click], folder: str, opacity: float = 0.5
) -> tuple[np.ndarray | None, str, tuple[Path, Path] | None]:
    """What the page shows for a picture, a model and what it was asked: the view, a line, files to download.

    These are the mask and what it cuts out. Keeps the clicks in the session, unless they were refused.
    """
    if session.image is None:
        return None, "Pick a picture first.", None
    found, line = find_mask(session, model, text, clicks)
    if found or not clicks:
        session.clicks = clicks
    view = draw_view(session.image, found, session.clicks if takes_clicks(model) else (), opacity)
    if not found:
        return view, line, None
    place = Path(tempfile.mkdtemp(dir=folder))  # new URLs for every mask
    name = session.name[:50]  # a file's name has 255 bytes at most
    files = place / f"{name}_mask.png", place / f"{name}_cutout.png"
    save_mask(found.ids, files[0], found.classes)
    save_picture(cutout(session.image, found.ids), files[1])
    return view, line, files


def takes_clicks(model: str | None) -> bool:
    return model is not None and known_rows()[model].kind.prompt == "click"


def view_size(image: np.ndarray) -> tuple[int, int]:
    """(width, height) of a picture (H, W, 3) as sent to the browser, which enlarges no picture by itself."""
    height, width = image.shape[:2]
    scale = VIEW_SIZE / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def pixel_under(index: Sequence[float], image: np.ndarray) -> tuple[int, int]:
    """A click (x, y) in pixels of the view -> the pixel (x, y) of the picture."""
    sizes = zip(index, view_size(image), image.shape[1::-1], strict=True)
    x, y = (min(int((place + 0.5) * own / shown), own - 1) for place, shown, own in sizes)
    return x, y


def draw_view(
    image: np.ndarray, found: Segmentation | None, clicks: Sequence[Click] = (), opacity: float = 0.5
) -> np.ndarray:
    """Picture, mask and clicks as the browser shows them: uint8 (h, w, 3)."""
    size = view_size(image)
    view = np.array(Image.fromarray(image).resize(size))
    if found:
        ids = np.array(Image.fromarray(found.ids).resize(size, Image.Resampling.NEAREST))
        view = overlay(view, ids, found.classes, opacity)
    points = [((x + 0.5) * size[0] / image.shape[1], (y + 0.5) * size[1] / image.shape[0]) for x, y, _ in clicks]
    return draw_points(view, points, [label for *_, label in clicks])


# ------------------------------------------------------------------------------------------------ page


def build_page(folder: str):
    """The gradio.Blocks; masks to download are written below `folder`."""
    import gradio as gr

    offered, missing = offered_rows()
    by_prompt = {row.kind.prompt: name for name, row in reversed(offered.items())}  # the first of each
    clicked, typed_for = by_prompt.get("click"), by_prompt.get("text")
    plain = {"format": "jpeg", "interactive": False, "show_label": False, "buttons": []}
    to_try = list_pictures(Path(TO_TRY)) if Path(TO_TRY).is_dir() else []
    with gr.Blocks(title="Segment a pet", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        session = gr.State(Session())
        gr.Markdown("# Segment a pet\nPick a picture and a model, click on a thing, or type what to look for.")
        with gr.Row():
            with gr.Column(scale=3):
                file = gr.File(label="Picture", show_label=False, file_types=["image"], height=130, elem_id="file")
                examples = gr.Gallery(
                    to_try, show_label=False, columns=3, height="auto", allow_preview=False, buttons=[],
                    interactive=False, visible=bool(to_try), elem_id="examples",
                )  # fmt: skip
                picture = gr.Image(visible=False, elem_id="picture", **plain)
                message = gr.Markdown("Pick a picture to start.", elem_id="message")
            with gr.Column(scale=2, min_width=300):
                model = gr.Radio(list(offered), value=first_row(offered), label="Model")
                if clicked:
                    sign = gr.Radio([("on the thing (+)", 1), ("not part of it (−)", 0)], value=1, label="A click is")
                    with gr.Row():
                        undo = gr.Button("Undo", size="md", min_width=80)
                        clear = gr.Button("Clear", size="md", min_width=80)
                else:
                    needed = [hint(name, reason) for name, reason in missing.items() if takes_clicks(name)]
                    gr.Markdown("\n\n".join(["**Clicks** need a model that takes them", *needed]), container=True)
                info = "Empty: its classes. The weights, 600 MB, are downloaded when they are first asked for."
                text = gr.Textbox(label=f"Text for {typed_for}", info=info, placeholder="type and press Enter")
                with gr.Row():
                    opacity = gr.Slider(0, 1, 0.5, step=0.05, label="Opacity", min_width=150)
                    outline = gr.Checkbox(False, label="outline alone", min_width=120)
                with gr.Row():
                    downloads = [
                        gr.DownloadButton(label, interactive=False, min_width=140)
                        for label in ("Download the mask", "Download the cut-out")
                    ]
                side_by_side = gr.Button("All models side by side", variant="primary")
        panels = {}
        with gr.Row(visible=False, elem_id="all") as row:
            for name in offered:
                with gr.Column(min_width=100):
                    panels[name] = gr.Image(**plain), gr.Markdown()
        if missing:
            lines = [hint(name, reason) for name, reason in missing.items()]
            gr.Markdown("\n\n".join(["**Not trained yet**", *lines]))

        def answer(tab: Session, name: str | None, typed: str, clicks: list[Click], share: float, alone: bool) -> dict:
            view, line, files = show_mask(tab, name, typed, clicks, folder, 0 if alone else share)
            buttons = zip(downloads, files or (None, None), strict=True)
            return {
                session: tab,
                model: name,
                message: line,
                picture: gr.Image(view, visible=view is not None),
            } | {button: gr.DownloadButton(value=path, interactive=path is not None) for button, path in buttons}

        def pick(path: str, name: str | None, typed: str, *look) -> dict:
            try:
                changes = answer(open_picture(path), name, typed, [], *look) | {row: gr.Row(visible=False)}
            except UserError as error:
                changes = {message: f"⚠️ {error}"}  # the picture before stays
            return changes | {file: None}

        def pick_example(name: str | None, typed: str, share: float, alone: bool, event: gr.SelectData) -> dict:
            return pick(to_try[event.index], name, typed, share, alone)

        def click(tab: Session, label: int, share: float, alone: bool, event: gr.SelectData) -> dict:
            if tab.image is None:  # the script was started anew behind an open tab
                return answer(tab, clicked, "", [], share, alone)
            place = pixel_under(event.index, tab.image)
            return answer(tab, clicked, "", [*tab.clicks, (*place, label)], share, alone)

        downloading = gr.Progress(track_tqdm=True)

        def show(tab: Session, name: str | None, typed: str, share: float, alone: bool, progress=downloading) -> dict:
            return answer(tab, name, typed, tab.clicks, share, alone)

        def look_for(tab: Session, typed: str, share: float, alone: bool, progress=downloading) -> dict:
            return answer(tab, typed_for, typed, tab.clicks, share, alone)

        def compare(tab: Session, share: float, alone: bool) -> dict:
            if tab.image is None:
                return {message: "Pick a picture first."}
            changes = {row: gr.Row(visible=True)}
            for name, (view, caption) in panels.items():
                found, line = find_mask(tab, name, "", tab.clicks)
                clicks = tab.clicks if takes_clicks(name) else ()
                drawn = draw_view(tab.image, found, clicks, 0 if alone else share)
                changes |= {view: drawn, caption: f"**{name}** – {line}" if found else line}
            return changes

        parts = [part for panel in panels.values() for part in panel]
        look, asked = [opacity, outline], [model, text]
        # One event at a time: the tabs share the models and the processor.
        queue = {"concurrency_id": "models", "concurrency_limit": 1, "trigger_mode": "multiple"}
        queue |= {"outputs": [session, file, picture, message, model, *downloads, row, *parts]}
        queue |= {"show_progress_on": message, "api_visibility": "private"}
        file.upload(pick, [file, *asked, *look], **queue)
        examples.select(pick_example, [*asked, *look], **queue)
        for control in (model.input, opacity.release, outline.input):
            control(show, [session, *asked, *look], **queue)
        text.submit(look_for, [session, text, *look], **queue)
        side_by_side.click(compare, [session, *look], **queue)
        if clicked:
            picture.select(click, [session, sign, *look], **queue)
            for button, kept in ((undo, -1), (clear, 0)):
                button.click(
                    lambda tab, *look, kept=kept: answer(tab, clicked, "", tab.clicks[:kept], *look),
                    [session, *look],
                    **queue,
                )
    return page


def first_row(offered: dict[str, Declared]) -> str | None:
    """The row that is chosen when the page opens: the best by class, or any that has a checkpoint."""
    try:
        return best_row(CHECKPOINTS)
    except UserError:
        return next((name for name, row in offered.items() if not row.hub_id), None)


if __name__ == "__main__":
    run_script(main)
