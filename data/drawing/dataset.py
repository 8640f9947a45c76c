"""Write a data set of drawn pictures, any of ANIMALS, in the folder layout.

A picture depends only on the seed and its number.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from data.drawing.animals import ANIMALS, PATTERNS, POSES, Rng, paint_coat
from data.drawing.scenes import draw_scene
from data.folder_layout import Fault, save_mask, write_data_set
from utils.classes import VOID

OVERSAMPLING = 2  # pictures are drawn larger by this factor, for smooth edges
Subject = tuple[str, str, int]  # one of ANIMALS, one of PATTERNS, class id in the mask


def write_drawings(
    target: Path, record: str, classes: Sequence[str], train: int, test: int, sides: tuple[int, int], seed: int
) -> None:
    """Draw these classes in the folder layout. record: the content of data.json; train, test: numbers of pictures."""
    first_val = train - (train + 9) // 10  # a tenth is for validation, as in the other layouts
    tasks = {"train": range(first_val), "val": range(first_val, train), "test": range(train, train + test)}
    job = partial(draw_pair, classes=classes, sides=sides, seed=seed)
    write_data_set(target, record, ["background", *classes], tasks, job)


def draw_pair(
    folder: Path, number: int, classes: Sequence[str], sides: tuple[int, int], seed: int
) -> tuple[bool, list[Fault]]:
    """A Job of write_data_set: draw the picture of this number and its mask."""
    rng = np.random.default_rng((seed, number))
    first = number % len(classes)  # classes in turn, so that every split has all of them
    second = first if rng.random() < 0.4 else int(rng.integers(len(classes)))
    subjects = [(classes[index], rng.choice(list(PATTERNS)), index + 1) for index in (first, second)]
    image, mask = draw_picture(rng, *subjects, sides)
    name = f"{classes[first]}_{number // len(classes) + 1}"
    image.save(folder / "images" / f"{name}.jpg", quality=92)
    save_mask(mask, folder, name)
    return True, []


def draw_picture(rng: Rng, subject: Subject, other: Subject, sides: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    """Picture and mask of the subject in a room or a garden; in every fourth picture, on average, with the other.

    sides: shortest and longest side in pixels. Outlines are VOID in the mask, two pixels wide.
    """
    width, height = size = tuple(rng.integers(*sides, 2, endpoint=True).tolist())
    canvas = Image.new("RGB", (width * OVERSAMPLING, height * OVERSAMPLING))
    labels = Image.new("L", canvas.size)
    draw_scene(canvas, rng)
    alone = rng.random() < 0.75
    draw_animal(canvas, labels, rng, subject, 0.0, 1.0 if alone else 0.6)
    if not alone:
        draw_animal(canvas, labels, rng, other, 0.4, 1.0)

    # Like a photo: slightly out of focus, lit from one side, tinted, noisy.
    image = canvas.resize(size, Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.6)))
    x, y = np.linspace(-1, 1, width), np.linspace(-1, 1, height)[:, None]
    light = 1 + rng.uniform(-0.15, 0.15) * x + rng.uniform(-0.15, 0.15) * y - 0.08 * (x**2 + y**2)  # (H, W)
    tint = rng.uniform(0.93, 1.07, 3) * rng.uniform(0.85, 1.12)
    pixels = np.asarray(image) * light[..., None] * tint + rng.normal(0, rng.uniform(1, 4), (height, width, 1))
    ids = labels.resize(size, Image.Resampling.NEAREST).filter(ImageFilter.MedianFilter(3))  # removes whiskers
    outline = np.asarray(ids.filter(ImageFilter.MaxFilter(3))) != np.asarray(ids.filter(ImageFilter.MinFilter(3)))
    return Image.fromarray(np.uint8(pixels.clip(0, 255))), Image.fromarray(np.where(outline, np.uint8(VOID), ids))


def draw_animal(canvas: Image.Image, ids: Image.Image, rng: Rng, subject: Subject, left: float, right: float) -> None:
    """Draw an animal between left and right (fractions of the width) into the picture, and its class id into ids."""
    animal, pattern, label = subject
    portrait = right - left == 1 and rng.random() < 0.2
    body, face = ANIMALS[animal](rng, "sit" if portrait else POSES[rng.integers(len(POSES))])
    mirror, tilt = rng.choice((-1.0, 1.0)), rng.normal(0, 0.06)
    turn = np.array([(mirror, mirror * tilt, 0), (tilt, -1, 0), (0, 0, 1)])
    discs = np.concatenate([shape.discs for shape in (face if portrait else body + face)]) @ turn
    low, high = (discs[:, :2] - discs[:, 2:]).min(0), (discs[:, :2] + discs[:, 2:]).max(0)
    share = rng.uniform(0.35, 0.55) if portrait else rng.uniform(0.7, 0.97)
    room = np.array(canvas.size) * (right - left, 1)
    scale = float(min(room * share / (high - low)))  # pixels per unit
    spot = rng.uniform(0.3, 0.7, 2) if portrait else rng.uniform((0, 0.85), 1)  # 0: left, top; 1: right, bottom
    shift = (left * canvas.width, 0) + (room - scale * (high - low)) * spot - scale * low
    body, face = ([shape.moved(turn * scale, shift) for shape in shapes] for shapes in (body, face))

    (x, y), shadow = shift, Image.new("L", canvas.size)
    ImageDraw.Draw(shadow).ellipse((x - 0.6 * scale, y - 0.08 * scale, x + 0.6 * scale, y + 0.06 * scale), 110)
    canvas.paste((20, 20, 30), mask=shadow.filter(ImageFilter.BoxBlur(0.04 * scale)))
    ids.paste(label, mask=paint_coat(canvas, rng, body, pattern, scale))
    for shape in face:
        shape.draw(ImageDraw.Draw(canvas), shape.paint)
        shape.draw(ImageDraw.Draw(ids), label)
