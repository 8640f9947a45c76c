"""A page in the browser to label your own pictures by clicks: masks to train on.

    pip install -r requirements-demo.txt
    python label.py photos/ --OUT=data/mine --CLASSES=cat,dog,rabbit   # then open http://127.0.0.1:7861
    python label.py photos/ --OUT=data/mine --COCO=mine.json           # goes on; also writes COCO JSON
    python train_clip.py recipes/own_classes.py --DATA_ROOT=data/mine --CHECKPOINTS=checkpoints/mine

Choose a class, click on a thing, correct it with further clicks, take it with Add, then the next thing. Classes that
PointCLIP's checkpoint knows are found by click, all others by box (GrabCut): two clicks on opposite corners, then dabs
on the thing or beside it. The brush is for the last corrections, with background as the eraser and with void. The page
takes the way that fits the class; you may choose another. Every Add is saved at once, see data/labelling.py.

Predictions corrected by hand become training data: Suggest shows the mask of predict.py, or a row's prediction.

    python predict.py photos/ --OUT=predictions
    python label.py photos/ --OUT=data/mine --CLASSES=cat,dog,rabbit --MASKS=predictions/masks

Masks from elsewhere need a classes.txt beside them.

Keys: 1 to 9 choose a class, 0 background, v void; Enter adds, u undoes, s suggests, right and left arrow change the
picture.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from utils.config import REPOSITORY, require_between, run_script

import numpy as np

from data.labelling import Canvas, Labels, classes_in, read_foreign, translate
from data.marking import WAYS, Session
from demo import PLAIN, QUEUE, pixel_under, serve
from utils.classes import VOID
from utils.device import pick_device
from utils.errors import UserError
from utils.inputs.layouts import skipped
from utils.rows import best_row, find_rows, load_row, row_named
from utils.rows.row import Row

OUT = ""  # folder of the data set, e.g. data/mine
CLASSES = ()  # names without background, cat,dog,rabbit; empty: those of OUT/classes.txt
COCO = ""  # also write the labels to this JSON
MASKS = ""  # folder of masks for Suggest, NAME.png, e.g. predictions/masks
MODEL = ""  # row by class for Suggest; empty: the best on validation
ZOOM = True  # False: clicks without a closer look, three times as fast
CHECKPOINTS = "checkpoints"  # folder of all rows; clicks fall back to the repository's
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"
HOST = "127.0.0.1"  # "0.0.0.0" opens the page to the network
PORT = 7861
MAX_PIXELS = 50_000_000  # larger pictures are rejected before decoding


def main(arguments: list[str]) -> None:
    require_between(globals(), 1, 65535, "PORT")
    pick_device(DEVICE)
    if missing := [name for name in ("gradio", "cv2") if not find_spec(name)]:
        raise UserError(f"{' and '.join(missing)} cannot be imported: pip install -r requirements-demo.txt")
    if len(arguments) != 1 or not OUT:
        raise UserError("name one folder of pictures, and set OUT: python label.py photos/ --OUT=data/mine")
    if MASKS and not Path(MASKS).is_dir():
        raise UserError(f"MASKS = {MASKS}: there is no such folder")
    labels = Labels(arguments[0], OUT, CLASSES, COCO)
    print(f"{OUT}: {labels.progress()}; classes {', '.join(labels.classes.things)}")
    if line := skipped(Path(arguments[0])):
        print(line)
    serve(lambda folder: build_page(labels), HOST, PORT, MAX_PIXELS, js=KEYS)


# ---------------------------------------------------------------------------------------------- models


@cache
def load(name: str, checkpoints: str) -> Row:
    return load_row(name, checkpoints, pick_device(DEVICE), zoom=ZOOM, precision="auto")


@cache
def clicker() -> Row | None:
    """The first row by click that can be loaded, from CHECKPOINTS or else the repository's."""
    for checkpoints in dict.fromkeys((CHECKPOINTS, str(REPOSITORY / "checkpoints"))):
        for name, row in find_rows(checkpoints).items():
            try:
                if row.kind.prompt == "click":
                    return load(name, checkpoints)
            except UserError as error:
                print(f"no clicks by {name}: {error}", flush=True)
    return None


def way_for(labels: Labels, index: int) -> str:
    """The way that fits a class id: one of WAYS."""
    if index in (0, VOID):
        return "brush"
    known = clicker().classes.things if clicker() else ()
    return "click" if labels.classes.names[index] in known else "box"


def suggest(labels: Labels, canvas: Canvas) -> tuple[np.ndarray, str]:
    """Class ids (H, W) from MASKS/NAME.png, or if there is none a row's prediction; and which. Raises UserError."""

    file = Path(MASKS) / f"{canvas.name}.png"
    if not (MASKS and file.exists()):
        row = load(row_named(MODEL, CHECKPOINTS) if MODEL else best_row(CHECKPOINTS), CHECKPOINTS)
        found = row.segment(canvas.image)
        return translate(found.ids, found.classes, labels.classes), row.name
    return read_foreign(file, classes_in(file), labels.classes, canvas.ids.shape), str(file)


# ------------------------------------------------------------------------------------------------ page

# The keyboard: a digit or v chooses the class of that label; the others press buttons. Not while somebody types.
KEYS: str = """() => window.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || /text|search|number/.test(event.target.type || "")) return
    const button = {Enter: "add", u: "undo", s: "suggest", ArrowRight: "next", ArrowLeft: "previous"}[event.key]
    const choice = [...document.querySelectorAll("#classes label")].find(
        label => label.innerText.trim().split(" ")[0] == event.key)
    const target = button ? document.getElementById(button) : choice && choice.querySelector("input")
    if (!target) return
    event.preventDefault()
    event.stopPropagation()
    target.click()
}, true)"""


def build_page(labels: Labels):
    """The gradio.Blocks."""
    import gradio as gr

    classes = labels.classes
    choices = [(f"{index} {name}" if index < 10 else name, index) for index, name in enumerate(classes.names)]
    choices = [*choices[1:], choices[0], ("v void", VOID)]
    brush = gr.Brush(default_size=20, colors=["#ffdc00"], color_mode="fixed")
    tools = {"sources": (), "transforms": (), "layers": False, "format": "png", "buttons": [], "show_label": False}
    tools |= {"height": "min(65vh, 110vw)", "brush": brush, "eraser": gr.Eraser(20)}
    with gr.Blocks(title="Label pictures", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        session = gr.State(Session(labels.start, way_for(labels, 1), clicker=clicker))
        with gr.Row():
            with gr.Column(scale=3):
                picture = gr.Image(elem_id="picture", format="jpeg", **PLAIN)
                editor = gr.ImageEditor(visible=False, elem_id="editor", **tools)
                message = gr.Markdown(elem_id="message")
                buttons = {}
                for width, names in (
                    (80, ("Add", "Undo", "Suggest")),
                    (120, ("Previous", "Next", "Skip", "Nothing in it")),
                ):
                    with gr.Row():
                        for name in names:
                            kind = "primary" if name == "Add" else "secondary"
                            about = {"variant": kind, "size": "md", "min_width": width, "elem_id": name.lower()}
                            buttons[name] = gr.Button(name, **about)
            with gr.Column(scale=2, min_width=300):
                progress = gr.Markdown(elem_id="progress")
                chosen = gr.Radio(choices, value=1, label="Class", elem_id="classes")
                way = gr.Radio([(f"by {key}", key) for key in WAYS], value=way_for(labels, 1), label="Find it")
                sign = gr.Radio([("on the thing (+)", 1), ("beside it (−)", 0)], value=1, label="A click is")
                gr.Markdown(
                    "Keys: **1**–**9** class, **0** background, **v** void, **Enter** Add, **u** Undo, **s** Suggest, "
                    "**→** Next, **←** Previous. *Skip* leaves a picture out, *Nothing in it* saves it as background."
                )

        def answer(tab: Session, index: int, how: str, work: Callable[[], str], needs_picture: bool = True) -> dict:
            """Do the work and show the picture; an error becomes the line below it."""
            try:
                if needs_picture and tab.canvas is None:  # the script was restarted, or the picture cannot be read
                    raise UserError("There is no picture: reload the page, or go to another one.")
                line = work()
            except (UserError, OSError) as error:
                line = f"⚠️ {error}"
            file, tab.way, tab.chosen = labels.pictures[tab.index], how, index
            split = f"in {labels.split_of(file.stem)}" if file.stem in labels.saved else "not saved"
            where = f"**{labels.progress()}**. Picture {tab.index + 1}: {file.name}, {split}"
            view, brushing = tab.view(classes) if tab.canvas else None, how == "brush" and tab.canvas
            layers = {"background": view, "layers": [], "composite": None} if brushing else None
            return {
                session: tab,
                message: line,
                progress: where,
                way: how,
                picture: gr.Image(None if brushing else view, visible=not brushing),
                editor: gr.ImageEditor(layers, visible=bool(brushing)),
            }

        def click(tab: Session, index: int, how: str, label: int, event: gr.SelectData) -> dict:
            def work() -> str:
                place = pixel_under(event.index, tab.canvas.image)
                return tab.find([*tab.clicks, (*place, label)], how, index)

            return answer(tab, index, how, work)

        def go(step: int, skip: bool = False) -> Callable[[Session, int, str], dict]:
            def work(tab: Session) -> str:
                if skip:
                    labels.remember(tab.index, skip=True)
                return tab.go(labels, tab.index + step)

            return lambda tab, index, how: answer(tab, index, how, lambda: work(tab), needs_picture=False)

        def change(tab: Session, index: int, how: str, strokes: dict | None) -> dict:
            return answer(tab, index, how, lambda: tab.change(labels, index, how, tab.painted(strokes)))

        def choose(tab: Session, index: int, strokes: dict | None) -> dict:
            return change(tab, index, way_for(labels, index), strokes)

        def add(tab: Session, index: int, how: str, strokes: dict | None) -> dict:
            return answer(tab, index, how, lambda: tab.add(labels, index, tab.painted(strokes)))

        def undo(tab: Session, index: int, how: str, strokes: dict | None) -> dict:
            return answer(tab, index, how, lambda: tab.undo(labels, index, tab.painted(strokes)))

        def make_suggestion(tab: Session, index: int, how: str) -> dict:
            return answer(tab, index, how, lambda: tab.suggest(*suggest(labels, tab.canvas)))

        queue = QUEUE | {"outputs": [session, message, progress, way, picture, editor], "show_progress_on": message}
        state = [session, chosen, way]
        page.load(lambda tab, *now: answer(tab, *now, lambda: tab.go(labels, labels.start), False), state, **queue)
        picture.select(click, [*state, sign], **queue)
        chosen.input(choose, [session, chosen, editor], **queue)
        way.input(change, [*state, editor], **queue)
        buttons["Add"].click(add, [*state, editor], **queue)
        buttons["Undo"].click(undo, [*state, editor], **queue)
        buttons["Suggest"].click(make_suggestion, state, **queue)
        buttons["Previous"].click(go(-1), state, **queue)
        buttons["Next"].click(go(1), state, **queue)
        buttons["Skip"].click(go(1, skip=True), state, **queue)
        buttons["Nothing in it"].click(lambda *now: answer(*now, lambda: now[0].add_nothing(labels)), state, **queue)
    return page


if __name__ == "__main__":
    run_script(main, positional="FOLDER")
