"""A picture of one or two animals in a room or a garden, and its mask.

Coats are shared by all animals; the shape tells them apart.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from data.drawing.animals import POSES, cat, dog
from data.drawing.coats import paint_coat
from data.drawing.more_animals import bird, rabbit, sheep, tortoise
from data.drawing.scenes import draw_garden, draw_room
from data.drawing.shapes import Rng, Shape, extent, stamp

ANIMALS = {"cat": cat, "dog": dog, "rabbit": rabbit, "bird": bird, "sheep": sheep, "tortoise": tortoise}
NO_PORTRAIT = ("tortoise",)  # the face is too small a part of the animal
OVERSAMPLING = 2  # pictures are drawn this much larger: smooth edges
VOID = 255  # in masks: the outlines


class Subject(NamedTuple):
    """An animal to draw."""

    animal: str  # a key of ANIMALS
    pattern: str  # of the coat, one of PATTERNS
    label: int  # its class id in the mask, from 1


def draw_picture(
    rng: Rng, subject: Subject, companion: Subject, sides: tuple[int, int]
) -> tuple[Image.Image, Image.Image]:
    """The subject in a room or a garden, in every fourth picture with a companion: picture and mask, of one size.

    sides: shortest and longest side in pixels.
    """
    width, height = (int(side) for side in rng.integers(sides[0], sides[1], 2, endpoint=True))
    canvas = Image.new("RGB", (width * OVERSAMPLING, height * OVERSAMPLING))
    labels = Image.new("L", canvas.size)
    draw_scene = draw_room if rng.random() < 0.5 else draw_garden
    draw_scene(canvas, rng, horizon=int(canvas.height * rng.uniform(0.5, 0.75)))
    if rng.random() < 0.75:
        draw_animal(canvas, labels, rng, subject, 0.0, 1.0)
    else:
        draw_animal(canvas, labels, rng, subject, 0.0, 0.6)
        draw_animal(canvas, labels, rng, companion, 0.4, 1.0)
    return develop(canvas, rng, (width, height)), make_mask(labels, (width, height))


def develop(canvas: Image.Image, rng: Rng, size: tuple[int, int]) -> Image.Image:
    """The drawing as a photo of the given size: out of focus a little, lit from somewhere, tinted, noisy."""
    width, height = size
    image = canvas.resize(size, Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.6)))
    x, y = np.linspace(-1, 1, width), np.linspace(-1, 1, height)[:, None]
    angle = rng.uniform(0, 2 * np.pi)
    light = 1 + rng.uniform(0.05, 0.2) * (x * np.cos(angle) + y * np.sin(angle)) - 0.08 * (x**2 + y**2)  # (H, W)
    tint = rng.uniform(0.93, 1.07, 3) * rng.uniform(0.85, 1.12)
    grain = rng.normal(0, rng.uniform(1, 4), (height, width, 1))
    return Image.fromarray((np.asarray(image) * light[..., None] * tint + grain).clip(0, 255).astype(np.uint8))


def make_mask(labels: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The drawn class ids at the picture's size, with VOID in a band two pixels wide along every outline."""
    drawn = np.asarray(labels)
    ids = np.zeros((size[1], size[0]), np.uint8)
    for label in np.unique(drawn[drawn > 0]):
        coverage = Image.fromarray((drawn == label).astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
        ids[np.asarray(coverage) > 127] = label
    whole = Image.fromarray(ids)
    outline = np.asarray(whole.filter(ImageFilter.MaxFilter(3))) != np.asarray(whole.filter(ImageFilter.MinFilter(3)))
    return Image.fromarray(np.where(outline, np.uint8(VOID), ids))


def draw_animal(
    canvas: Image.Image, labels: Image.Image, rng: Rng, subject: Subject, left: float, right: float
) -> None:
    """Draw an animal into the picture between left and right (0 to 1), and into the labels with its class id."""
    portrait = right - left == 1 and rng.random() < 0.2 and subject.animal not in NO_PORTRAIT
    animal = ANIMALS[subject.animal](rng, "sit" if portrait else POSES[rng.integers(len(POSES))])
    mirror, tilt = rng.choice((-1.0, 1.0)), rng.normal(0, 0.06)
    turn = np.array([[mirror * np.cos(tilt), np.sin(tilt)], [mirror * np.sin(tilt), -np.cos(tilt)]])
    focus = animal[1] if portrait else animal[0]  # what shall be in the picture: the face, or all of it
    scale, offset = fit([shape.moved(turn, 1, 0) for shape in focus], rng, canvas.size, left, right, portrait)
    coat, face, whiskers = ([shape.moved(turn, scale, offset) for shape in shapes] for shapes in animal)

    draw_shadow(canvas, coat, scale)
    labels.paste(subject.label, mask=paint_coat(canvas, rng, coat, subject.pattern, scale))
    for detail in face + whiskers:
        stamp(ImageDraw.Draw(canvas), detail, detail.paint)
    for detail in face:
        stamp(ImageDraw.Draw(labels), detail, subject.label)


def fit(
    focus: list[Shape], rng: Rng, size: tuple[int, int], left: float, right: float, portrait: bool
) -> tuple[float, np.ndarray]:
    """Pixels per unit and the shift (x, y) that put `focus` at a random place between left and right."""
    low, high = extent(focus)
    low, high = low - 0.06, high + 0.06
    room = np.array(size) * (right - left, 1)
    share = rng.uniform(0.3, 0.5, 2) if portrait else rng.uniform(0.7, 1, 2) * (1, 0.9)
    scale = float(min(room * share / (high - low)))
    slack = room[0] - scale * (high - low)[0]
    start = left * size[0] + slack * (rng.uniform(0.3, 0.7) if portrait else rng.random())
    bottom = room[1] * (rng.uniform(0.45, 0.75) if portrait else rng.uniform(0.86, 0.98))
    return scale, np.array((start, bottom)) - scale * np.array((low[0], high[1]))


def draw_shadow(canvas: Image.Image, coat: list[Shape], scale: float) -> None:
    """A soft shadow on the ground."""
    low, high = extent(coat)
    x, y = (low[0] + high[0]) / 2, high[1]
    shadow = Image.new("L", canvas.size)
    ImageDraw.Draw(shadow).ellipse((x - 0.6 * scale, y - 0.08 * scale, x + 0.6 * scale, y + 0.06 * scale), 110)
    canvas.paste((20, 20, 30), mask=shadow.filter(ImageFilter.BoxBlur(0.04 * scale)))
