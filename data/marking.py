"""What clicks, boxes, strokes and suggestions do to the labels of a picture: the state of one tab of label.py."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from data.grabcut import find_in_box
from data.labelling import Canvas, Labels
from demo import draw_view, view_size
from utils.classes import VOID, Classes
from utils.errors import UserError
from utils.figures.overlays import outline
from utils.inputs.clicks import Click
from utils.rows.row import Row, Segment, Segmentation

YELLOW = (255, 220, 0)
# ways to find a thing, and what to do
WAYS = {
    "click": "Click on a thing of the class.",
    "box": "Click on two opposite corners of a box around the thing; correct by clicks on it or beside it.",
    "brush": "Paint, then take it with Add.",
}


@dataclass(eq=False)
class Session:
    """State of one browser tab. Its methods change it and return a line for the page, or raise UserError."""

    index: int = 0
    way: str = "click"  # one of WAYS
    canvas: Canvas | None = None
    clicks: list[Click] = field(default_factory=list)  # by box: two corners, then dabs
    mask: np.ndarray | None = None  # bool (H, W): what Add takes
    ids: int | np.ndarray = 0  # its class id, or uint8 (H, W)
    chosen: int = 1  # class id on the page, at the last answer
    segment: Segment | None = None  # of the row by click, for this picture
    clicker: Callable[[], Row | None] = lambda: None  # loads the row by click, if there is one

    def go(self, labels: Labels, index: int) -> str:
        """Open a picture of the folder."""
        if self.canvas and self.canvas.unsaved:  # the last time it could not be written
            labels.save(self.canvas)
        if index >= len(labels.pictures):
            return f"That was the last picture: {labels.progress()}. To train: see the top of label.py."
        self.index, self.canvas, self.segment = max(0, index), None, None
        self.forget()
        labels.remember(self.index)
        self.canvas = labels.load(self.index)
        if self.way == "click" and (row := self.clicker()):
            self.segment = row.open(self.canvas.image)  # encoded before the first click
        return WAYS[self.way]

    def forget(self) -> None:
        self.clicks, self.mask = [], None

    def change(self, labels: Labels, index: int, way: str, painted: np.ndarray | None) -> str:
        """Change the class, also of what was found, or the way, which clears the clicks.

        painted: strokes so far, bool (H, W) or None; they are added as the class that was chosen until now.
        """
        if painted is not None:
            self.forget()
            return f"{self.add(labels, self.chosen, painted)} {self.change(labels, index, way, None)}"
        if way == self.way and self.clicks:
            return self.find(self.clicks, way, index)
        self.forget()
        return WAYS[way]

    def find(self, clicks: list[Click], way: str, index: int) -> str:
        """Find the thing under these clicks. They are kept unless they are rejected."""
        image, mask = self.canvas.image, None
        if way == "box" and len(clicks) > 1:
            mask = find_in_box(image, [click[:2] for click in clicks[:2]], clicks[2:])
        elif way == "click" and clicks:
            self.segment = self.segment or (self.clicker() and self.clicker().open(image))
            if not self.segment:
                raise UserError("No row by click has a checkpoint: choose another way.")
            mask = self.segment(clicks).ids > 0
        self.clicks, self.mask, self.ids = clicks, mask, index
        if mask is not None:
            return f"{mask.mean():.1%} of the picture: correct it with clicks, or take it with Add."
        return "Click on the opposite corner." if clicks else WAYS[way]

    def add(self, labels: Labels, index: int, painted: np.ndarray | None) -> str:
        """Take what was found, and what was painted: bool (H, W) or None; save."""
        if self.mask is None and painted is None and not self.canvas.unsaved:
            return "There is nothing to add yet."
        if self.mask is not None:
            self.canvas.add(self.mask, self.ids)
        if painted is not None:
            self.canvas.add(painted, index)
        self.forget()
        labels.save(self.canvas)
        return "Added and saved."

    def add_nothing(self, labels: Labels) -> str:
        """Save a picture without things: all of it is background."""
        if self.canvas.ids.any():
            raise UserError("Something was added to this picture: undo that first.")
        labels.save(self.canvas)
        return self.go(labels, self.index + 1)

    def undo(self, labels: Labels, index: int, painted: np.ndarray | None) -> str:
        """Take back the last click, the suggestion, the strokes or the last Add, which is saved."""
        if self.clicks:
            return self.find(self.clicks[:-1], self.way, index)
        if self.mask is not None or painted is not None:
            self.forget()
        elif not self.canvas.undo() and not (self.canvas.new and self.canvas.name in labels.saved):
            return "There is nothing to undo on this picture."
        elif self.canvas.new and not self.canvas.history:
            labels.withdraw(self.canvas)
        else:
            labels.save(self.canvas)
        return "Undone."

    def suggest(self, ids: np.ndarray, source: str) -> str:
        """Show class ids (H, W) where the picture has no label yet. source: where they come from."""
        self.clicks, self.ids, self.mask = [], ids, (ids != 0) & (self.canvas.ids == 0)
        if not self.mask.any():
            self.forget()
            return f"Nothing new: {source}."
        return f"Suggested by {source}: take it with Add, then correct it."

    def painted(self, strokes: dict | None) -> np.ndarray | None:
        """What gr.ImageEditor returns, as a mask of the picture: bool (H, W); None without a stroke."""
        for layer in (strokes or {}).get("layers", ()):
            mask = np.array(Image.fromarray(layer[..., 3]).resize(self.canvas.image.shape[1::-1])) > 127
            return mask if mask.any() else None
        return None

    def view(self, classes: Classes) -> np.ndarray:
        """The picture with its labels and, in yellow, what Add would take: uint8 (h, w, 3)."""
        image, ids = self.canvas.image, self.canvas.ids
        if self.mask is not None:
            ids = np.where(self.mask, np.asarray(self.ids, np.uint8), ids)
        view, size = draw_view(image, Segmentation(ids, classes), self.clicks), view_size(image)
        void = np.array(Image.fromarray(ids == VOID).resize(size))
        view[void] = view[void] // 3 + 170
        if self.mask is not None:
            shown = np.array(Image.fromarray(self.mask).resize(size)).astype(np.uint8)
            view[outline(shown, 3) & (shown > 0)] = YELLOW
        if self.way == "box" and len(self.clicks) > 1:
            canvas, scale = Image.fromarray(view), size[0] / image.shape[1]
            (left, right), (top, bottom) = (sorted(click[axis] * scale for click in self.clicks[:2]) for axis in (0, 1))
            ImageDraw.Draw(canvas).rectangle((left, top, right, bottom), outline=YELLOW, width=2)
            view = np.array(canvas)
        return view
