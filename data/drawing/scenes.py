"""Backgrounds: a room or a garden, with objects."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from PIL import Image, ImageDraw

from data.drawing.animals import COATS, Colour, Rng

CLOTHS = ((176, 82, 72), (92, 128, 150), (206, 178, 120), (120, 140, 96), (164, 132, 160), (86, 92, 120))
GREENS = ((86, 132, 70), (110, 152, 76), (64, 108, 72), (140, 160, 90))
WOODS = ((146, 104, 68), (182, 140, 98), (104, 74, 54), (206, 172, 130), (226, 220, 210))
SKIES = ((150, 190, 222), (196, 208, 216), (230, 200, 180))


def draw_scene(canvas: Image.Image, rng: Rng) -> None:
    """Fill the canvas with a room or a garden, and put balls, cushions and rugs on the ground."""
    width, height = canvas.size
    horizon, room = int(height * rng.uniform(0.5, 0.75)), rng.random() < 0.5
    wall, floor = pick(rng, CLOTHS if room else SKIES), pick(rng, WOODS + CLOTHS if room else GREENS)
    above = np.linspace(shade(wall, 1.1), shade(wall, 0.95), horizon)  # (H, 3)
    below = np.linspace(shade(floor, 0.8), shade(floor, 1.1), height - horizon)
    rows = np.concatenate([above, below]).astype(np.uint8)
    canvas.paste(Image.fromarray(np.repeat(rows[:, None], width, 1)))
    draw = ImageDraw.Draw(canvas)
    if room:
        for x in np.arange(0, width, rng.uniform(0.05, 0.15) * width):  # wallpaper
            draw.rectangle((x, 0, x + 0.03 * width, horizon), shade(wall, 0.94))
        for x in np.linspace(-width, 2 * width, 24):  # boards
            draw.line((width / 2 + (x - width / 2) * 0.6, horizon, x, height), shade(floor, 0.78), 2)
    else:
        for x, y in rng.uniform((0, horizon), (width, height), (160, 2)):  # grass
            blade = (x, y, x + rng.uniform(-4, 4), y - rng.uniform(3, 12))
            draw.line(blade, shade(floor, rng.uniform(0.7, 1.35)), 2)
    draw_things = draw_furniture if room else draw_garden
    draw_things(draw, rng, lambda: partial(place, rng.uniform(0, width), horizon, rng.uniform(0.25, 0.45) * height))
    for _ in range(rng.integers(1, 5)):  # balls, cushions and rugs, some in the colours of coats
        at = partial(place, rng.uniform(0, width), rng.uniform(horizon, height), rng.uniform(0.03, 0.08) * height)
        wide, colour = rng.choice((1, 1.6, 4)), pick(rng, CLOTHS + COATS)
        draw.rounded_rectangle(at(-wide, 1, wide, -1), 12, colour, shade(colour, 0.75), 3)


def pick(rng: Rng, colours: Sequence[Colour]) -> Colour:
    """One of the colours with a small random change."""
    colour = np.array(colours[rng.integers(len(colours))]) + rng.integers(-18, 19, 3)
    return tuple(colour.clip(0, 255).tolist())


def shade(colour: Colour, factor: float) -> Colour:
    """The colour, darker or brighter."""
    return tuple(min(255, int(value * factor)) for value in colour)


def place(x: float, y: float, size: float, *units: float) -> list[float]:
    """Points x, y, x, y, ... in units of size, y up, relative to (x, y) -> pixels."""
    return (np.reshape(units, (-1, 2)) * (size, -size) + (x, y)).ravel().tolist()


def draw_furniture(draw: ImageDraw.ImageDraw, rng: Rng, spot: Callable[[], Callable[..., list[float]]]) -> None:
    """A window, a shelf of books, a sofa and a potted plant; spot() is place() at a random x on the horizon."""
    at, sky = spot(), pick(rng, SKIES)
    draw.rectangle(at(-0.5, 1.6, 0.5, 0.6), (236, 232, 224))
    for left, top in ((-0.45, 1.55), (0.03, 1.55), (-0.45, 1.07), (0.03, 1.07)):
        draw.rectangle(at(left, top, left + 0.42, top - 0.42), sky)

    at, wood = spot(), pick(rng, WOODS)
    draw.rectangle(at(-0.5, 1.7, 0.5, 0), shade(wood, 0.6))
    for bottom in (0.05, 0.47, 0.89, 1.31):
        for left in np.arange(-0.46, 0.42, 0.08):
            draw.rectangle(at(left, bottom + rng.uniform(0.22, 0.34), left + 0.07, bottom), pick(rng, CLOTHS))
        draw.rectangle(at(-0.5, bottom, 0.5, bottom - 0.05), wood)

    at, cloth = spot(), pick(rng, CLOTHS)
    draw.rounded_rectangle(at(-1, 0.8, 1, -0.1), 8, shade(cloth, 0.85))
    draw.rounded_rectangle(at(-1.1, 0.5, 1.1, -0.15), 8, shade(cloth, 0.75))
    for left in (-0.9, 0):
        draw.rounded_rectangle(at(left, 0.35, left + 0.9, -0.1), 8, cloth)

    at, green = spot(), pick(rng, GREENS)
    for x, y in rng.uniform((-0.8, 0.6), (0.8, 1.3), (14, 2)):
        draw.polygon(at(-0.1, 0.4, 0.1, 0.4, x, y), shade(green, rng.uniform(0.75, 1.25)))
    draw.polygon(at(-0.24, 0.45, 0.24, 0.45, 0.17, -0.05, -0.17, -0.05), pick(rng, CLOTHS))


def draw_garden(draw: ImageDraw.ImageDraw, rng: Rng, spot: Callable[[], Callable[..., list[float]]]) -> None:
    """A house, a fence, a tree and bushes."""
    at = spot()
    draw.rectangle(at(-0.7, 0.8, 0.7, 0), pick(rng, CLOTHS))
    draw.polygon(at(-0.8, 0.8, 0, 1.4, 0.8, 0.8), pick(rng, ((150, 80, 66), (96, 92, 100))))
    for left in (-0.49, 0.21):
        draw.rectangle(at(left, 0.6, left + 0.28, 0.3), (236, 226, 180), (240, 236, 228), 3)

    at, wood = spot(), pick(rng, WOODS)
    for level in (0.25, 0.6):
        draw.rectangle(at(-2, level, 2, level - 0.07), shade(wood, 0.8))
    for x in np.arange(-2, 2, 0.22):
        draw.polygon(at(x, 0, x, 0.8, x + 0.07, 0.9, x + 0.14, 0.8, x + 0.14, 0), wood)

    for high in (1.3, 0.2, 0.2):
        at, green = spot(), pick(rng, GREENS)
        draw.rectangle(at(-0.08, high, 0.08, -0.05), pick(rng, WOODS))
        for x, y, radius in rng.uniform((-0.5, -0.35, 0.12), (0.5, 0.35, 0.25), (22, 3)):
            leaves = at(x - radius, high + y + radius, x + radius, high + y - radius)
            draw.ellipse(leaves, shade(green, 1 + 0.5 * y + rng.uniform(-0.1, 0.1)))
