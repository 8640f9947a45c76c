"""What is behind the animals: a room or a garden, and what stands in it."""

import numpy as np
from PIL import Image, ImageDraw

from data.drawing.coats import COATS
from data.drawing.shapes import Colour, Draw, Rng, Shape, oval, stamp

CLOTHS = (
    (176, 82, 72),
    (92, 128, 150),
    (206, 178, 120),
    (120, 140, 96),
    (164, 132, 160),
    (222, 206, 186),
    (86, 92, 120),
)
GREENS = ((86, 132, 70), (110, 152, 76), (64, 108, 72), (140, 160, 90))
WOODS = ((146, 104, 68), (182, 140, 98), (104, 74, 54), (206, 172, 130))


def pick(rng: Rng, colours: tuple[Colour, ...]) -> Colour:
    """One of the colours, varied a little."""
    colour = np.array(colours[rng.integers(len(colours))]) + rng.integers(-18, 19, 3)
    return tuple(int(value) for value in colour.clip(0, 255))


def shade(colour: Colour, factor: float) -> Colour:
    """The colour, darker or brighter."""
    return tuple(min(255, int(value * factor)) for value in colour)


def backdrop(canvas: Image.Image, wall: tuple, floor: tuple, horizon: int) -> Draw:
    """Fill the canvas with wall above the horizon and floor below it, each from a first to a second colour."""
    width, height = canvas.size
    rows = np.concatenate([np.linspace(*wall, horizon), np.linspace(*floor, height - horizon)])  # (H, 3)
    canvas.paste(Image.fromarray(np.repeat(rows.astype(np.uint8)[:, None], width, 1)))
    return ImageDraw.Draw(canvas)


def draw_room(canvas: Image.Image, rng: Rng, horizon: int) -> None:
    """Wallpaper, a floor and some furniture."""
    width, height = canvas.size
    wall, floor = pick(rng, CLOTHS), pick(rng, WOODS + CLOTHS)
    draw = backdrop(canvas, (shade(wall, 1.12), shade(wall, 0.92)), (shade(floor, 0.8), shade(floor, 1.1)), horizon)
    pitch = rng.uniform(0.05, 0.15) * width
    if rng.random() < 0.5:
        for x in np.arange(0, width, pitch):
            draw.rectangle((x, 0, x + pitch / 3, horizon), shade(wall, 0.94))
    for x in np.linspace(-width, 2 * width, 24):  # boards
        draw.line((width / 2 + (x - width / 2) * 0.6, horizon, x, height), shade(floor, 0.78), 2)
    draw.rectangle((0, horizon - 5, width, horizon), shade(wall, 1.25))
    for draw_item in rng.permutation([window, painting, shelf, sofa, pot_plant, cupboard])[:3]:
        draw_item(draw, rng, rng.uniform(0, width), horizon, rng.uniform(0.25, 0.45) * height)
    if rng.random() < 0.6:  # a rug
        x, rug, half = rng.uniform(0, width), pick(rng, CLOTHS), rng.uniform(0.3, 0.6) * width
        deep = height - horizon
        for ring, brightness in ((1, 1.0), (0.8, 0.8), (0.7, 1.1)):
            box = (x - half * ring, height - deep * (0.4 + 0.35 * ring))
            draw.ellipse((*box, x + half * ring, height - deep * (0.4 - 0.35 * ring)), shade(rug, brightness))
    toys(draw, rng, width, height, horizon)


def draw_garden(canvas: Image.Image, rng: Rng, horizon: int) -> None:
    """Sky, hills, trees, a fence and grass."""
    width, height = canvas.size
    sky, grass = pick(rng, ((150, 190, 222), (196, 208, 216), (230, 200, 180))), pick(rng, GREENS)
    draw = backdrop(canvas, (sky, shade(sky, 1.15)), (shade(grass, 0.85), shade(grass, 1.15)), horizon)
    for _ in range(3):  # hills
        x, radius = rng.uniform(0, width), rng.uniform(0.3, 0.6) * width
        top = horizon - rng.uniform(0.05, 0.2) * height
        hill = (x - radius, top, x + radius, 2 * horizon - top)  # the horizon cuts it in half
        draw.chord(hill, 180, 360, shade(pick(rng, GREENS), rng.uniform(0.8, 1.25)))
    for draw_item in rng.permutation([tree, tree, fence, bush, bush, house])[:4]:
        draw_item(draw, rng, rng.uniform(0, width), horizon, rng.uniform(0.3, 0.5) * height)
    for x, y in rng.uniform((0, horizon), (width, height), (160, 2)):
        blade = rng.uniform(0.01, 0.04) * height
        draw.line((x, y, x + rng.uniform(-4, 4), y - blade), shade(grass, rng.uniform(0.7, 1.35)), 2)
    for x, y in rng.uniform((0, horizon), (width, height), (rng.integers(12), 2)):  # flowers
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), pick(rng, ((236, 220, 120), (230, 150, 170), (240, 240, 250))))
    toys(draw, rng, width, height, horizon)


# What stands in a room or a garden: at (x, y) on the ground, about `size` pixels large.


def window(draw: Draw, rng: Rng, x: float, y: float, size: float) -> None:
    top = y - 1.6 * size
    draw.rectangle((x - 0.5 * size, top, x + 0.5 * size, top + size), (236, 232, 224))
    sky = pick(rng, ((160, 196, 226), (206, 214, 222), (60, 70, 104)))
    for left, up in ((-0.45, 0.05), (0.03, 0.05), (-0.45, 0.53), (0.03, 0.53)):
        corner = (x + left * size, top + up * size)
        draw.rectangle((*corner, corner[0] + 0.42 * size, corner[1] + 0.42 * size), sky)


def painting(draw: Draw, rng: Rng, x: float, y: float, size: float) -> None:
    box = np.array((x - 0.4 * size, y - 1.5 * size, x + 0.4 * size, y - 0.9 * size))
    draw.rectangle(tuple(box), pick(rng, WOODS))
    draw.rectangle(tuple(box + 0.06 * size * np.array((1, 1, -1, -1))), pick(rng, CLOTHS))
    draw.ellipse(tuple(box + 0.15 * size * np.array((1, 1, -2, -1))), pick(rng, CLOTHS))


def shelf(draw: Draw, rng: Rng, x: float, y: float, size: float) -> None:
    wood = pick(rng, WOODS)
    draw.rectangle((x - 0.5 * size, y - 1.7 * size, x + 0.5 * size, y), shade(wood, 0.6))
    for board in range(4):
        bottom, left = y - (0.05 + 0.42 * board) * size, x - 0.46 * size
        while left < x + 0.4 * size:
            book, tall = rng.uniform(0.05, 0.1) * size, rng.uniform(0.22, 0.34) * size
            draw.rectangle((left, bottom - tall, left + book, bottom), pick(rng, CLOTHS))
            left += book + 2
        draw.rectangle((x - 0.5 * size, bottom, x + 0.5 * size, bottom + 0.05 * size), wood)


def sofa(draw: Draw, rng: Rng, x: float, y: float, size: float) -> None:
    cloth = pick(rng, CLOTHS)
    draw.rounded_rectangle((x - size, y - 0.8 * size, x + size, y + 0.1 * size), 0.15 * size, shade(cloth, 0.85))
    for side in (-1, 1):
        draw.rounded_rectangle(
            (x + (0.45 * side - 0.43) * size, y - 0.35 * size, x + (0.45 * side + 0.43) * size, y + 0.1 * size),
            0.08 * size,
            cloth,
        )
        arm = x + side * size
        box = (arm - 0.14 * size, y - 0.5 * size, arm + 0.14 * size, y + 0.18 * size)
        draw.rounded_rectangle(box, 0.12 * size, shade(cloth, 0.75))


def cupboard(draw: Draw, rng: Rng, x: float, y: float, size: float) -> None:
    wood = pick(rng, WOODS)
    draw.rectangle((x - 0.6 * size, y - 0.8 * size, x + 0.6 * size, y + 0.05 * size), wood)
    for side in (-1, 1):
        middle = x + 0.29 * side * size
        draw.rectangle((middle - 0.25 * size, y - 0.7 * size, middle + 0.25 * size, y - 0.05 * size), shade(wood, 0.85))
        knob = x + 0.08 * side * size
        draw.ellipse((knob - 3, y - 0.4 * size, knob + 3, y - 0.4 * size + 6), (34, 28, 30))


def pot_plant(draw: Draw, rng: Rng, x: float, y: float, size: float) -> None:
    green = pick(rng, GREENS)
    for angle in rng.uniform(0.15, np.pi - 0.15, 14):
        length, start = rng.uniform(0.5, 0.9) * size, np.array((x, -(y - 0.4 * size)))
        leaf = oval(length / 2, 0, length / 2, 0.09 * size).points
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        points = (leaf @ turn + start) * (1, -1)
        stamp(draw, Shape(points, None, 1.0), shade(green, rng.uniform(0.75, 1.25)))
    corners = ((-0.24, -0.45), (0.24, -0.45), (0.17, 0.05), (-0.17, 0.05))
    draw.polygon([(x + a * size, y + b * size) for a, b in corners], pick(rng, ((186, 104, 72), *CLOTHS)))


def tree(draw: Draw, rng: Rng, x: float, y: float, size: float) -> None:
    draw.rectangle((x - 0.08 * size, y - 1.2 * size, x + 0.08 * size, y + 0.05 * size), pick(rng, WOODS))
    leaves(draw, rng, x, y - 1.3 * size, 0.5 * size)


def bush(draw: Draw, rng: Rng, x: float, y: float, size: float) -> None:
    leaves(draw, rng, x, y - 0.2 * size, 0.45 * size)


def leaves(draw: Draw, rng: Rng, x: float, y: float, size: float) -> None:
    green = pick(rng, GREENS)
    for dx, dy in rng.uniform(-1, 1, (22, 2)) * size * (1, 0.7):
        radius, brightness = rng.uniform(0.25, 0.5) * size, 1 - 0.25 * dy / size + rng.uniform(-0.1, 0.1)
        draw.ellipse((x + dx - radius, y + dy - radius, x + dx + radius, y + dy + radius), shade(green, brightness))


def fence(draw: Draw, rng: Rng, x: float, y: float, size: float) -> None:
    wood = pick(rng, (*WOODS, (232, 228, 220)))
    pitch = 0.22 * size
    for level in (0.25, 0.6):
        draw.rectangle((x - 2 * size, y - level * size, x + 2 * size, y - (level - 0.07) * size), shade(wood, 0.8))
    for left in np.arange(x - 2 * size, x + 2 * size, pitch):
        right, top = left + 0.6 * pitch, y - 0.8 * size
        draw.polygon([(left, y), (left, top), ((left + right) / 2, top - 0.1 * size), (right, top), (right, y)], wood)


def house(draw: Draw, rng: Rng, x: float, y: float, size: float) -> None:
    wall = pick(rng, CLOTHS)
    draw.rectangle((x - 0.7 * size, y - 0.8 * size, x + 0.7 * size, y), shade(wall, 1.1))
    roof = [(x - 0.8 * size, y - 0.8 * size), (x, y - 1.4 * size), (x + 0.8 * size, y - 0.8 * size)]
    draw.polygon(roof, pick(rng, ((150, 80, 66), (96, 92, 100))))
    for side in (-1, 1):
        box = (x + (0.35 * side - 0.14) * size, y - 0.6 * size, x + (0.35 * side + 0.14) * size, y - 0.3 * size)
        draw.rectangle(box, (236, 226, 180), (240, 236, 228), 3)


def toys(draw: Draw, rng: Rng, width: int, height: int, horizon: int) -> None:
    """Balls and cushions on the ground, in the colours of coats too."""
    for _ in range(rng.integers(0, 4)):
        x, y = rng.uniform((0, horizon), (width, height))
        radius, colour = rng.uniform(0.03, 0.08) * height, pick(rng, CLOTHS + COATS)
        if rng.random() < 0.5:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), colour)
            draw.arc((x - radius, y - radius, x + radius, y + radius), 200, 340, shade(colour, 0.7), 3)
        else:
            box = (x - 1.6 * radius, y - radius, x + 1.6 * radius, y + radius)
            draw.rounded_rectangle(box, 0.6 * radius, colour, shade(colour, 0.75), 3)
