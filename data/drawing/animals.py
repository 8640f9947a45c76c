"""Animals as lists of shapes, painted one over the other, and their coats.

An animal faces right. x points right, y up, the ground is at y = 0; a cat's trunk is about one unit long.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Rng = np.random.Generator
Colour = tuple[int, int, int]
Point = tuple[float, float]
Station = tuple[float, float, float]  # x, y, radius

DARK, BROWN, WHITE, PINK, ORANGE = (34, 28, 30), (104, 64, 34), (250, 248, 244), (222, 140, 140), (236, 150, 50)
EYES = ((150, 190, 70), (226, 180, 60), (110, 176, 210), (120, 200, 150))
FAR, LIGHT = 0.72, 1.22  # brightness of far legs and of muzzles
POSES = ("stand", "sit", "lie")
# All animals share the coats; only their shapes differ. Pattern: size of spots, contrast, bias to the second colour
PATTERNS = {"pied": (0.22, 3, 0), "plain": (0.3, 0.2, -0.4), "spotted": (0.06, 2.5, -1.2), "striped": (0.15, 2.5, -0.2)}
COATS = ((216, 140, 70), (232, 204, 158), (150, 152, 160), (70, 66, 70), (134, 92, 60), (240, 236, 228))


class Shape(NamedTuple):
    """A tube of discs along a curve."""

    discs: np.ndarray  # (N, 3): x, y, radius
    paint: float | Colour  # brightness of the coat, or a colour

    def moved(self, matrix: np.ndarray, shift: Point = (0, 0)) -> "Shape":
        """The shape with its discs times a matrix (3, 3), then shifted by (x, y)."""
        return Shape(self.discs @ matrix + (*shift, 0), self.paint)

    def draw(self, draw: ImageDraw.ImageDraw, fill: int | Colour) -> None:
        """Fill the shape, given in pixels, y down."""
        for x, y, radius in self.discs:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill)


Animal = tuple[list[Shape], list[Shape]]  # body, covered by the coat, and face


def tube(*stations: Station, paint: float | Colour = 1.0) -> Shape:
    """A tube along the Bézier curve with these control points; one point gives a disc."""
    t, curve = np.linspace(0, 1, 24)[:, None, None], np.array([stations], float)
    while curve.shape[1] > 1:  # de Casteljau's algorithm
        curve = (1 - t) * curve[:, :-1] + t * curve[:, 1:]
    return Shape(curve[:, 0], paint)


def pair(x: float, y: float, *stations: Station, paint: float | Colour = 1.0) -> list[Shape]:
    """Two tubes, mirrored at x; the stations are relative to (x, y)."""
    return [tube(*((x + side * dx, y + dy, r) for dx, dy, r in stations), paint=paint) for side in (-1, 1)]


def eye(x: float, y: float, radius: float, iris: Colour, slit: float = 0.0) -> list[Shape]:
    """Rim, iris, pupil and glint; slit: half the height of a narrow pupil, 0 for a round one."""
    pupil = tube((x, y - slit, 0.4 * radius - slit / 3), (x, y + slit, 0.4 * radius - slit / 3), paint=DARK)
    rim, inner = tube((x, y, radius), paint=DARK), tube((x, y, 0.8 * radius), paint=iris)
    return [rim, inner, pupil, tube((x + 0.3 * radius, y + 0.3 * radius, 0.25 * radius), paint=WHITE)]


def leg(hip: float, height: float, foot: float, radius: float, paint: float = 1.0) -> list[Shape]:
    """A leg from (hip, height) down to the ground at foot, and its paw."""
    knee, ankle = (hip - 0.04, height / 2, 0.7 * radius), (foot, 0.06, 0.66 * radius)
    paw = tube((foot, 0.05, 0.05), (foot + 0.08, 0.045, 0.045), paint=paint)
    return [tube((hip, height, radius), knee, ankle, paint=paint), paw]


def mammal(rng: Rng, pose: str, tall: float, stout: float, *tail: Station) -> tuple[list[Shape], Point]:
    """Body with four legs, and position of the head. tall, stout: 1 for a cat; tail: relative to the rump."""
    step = rng.uniform(-0.12, 0.12)
    if pose == "stand":
        rump, head = (-0.42, 0.5), (0.47, 0.86)
        body = [
            *leg(-0.26, 0.44, -0.22 - step, 0.085, FAR),
            *leg(0.22, 0.44, 0.28 + step, 0.07, FAR),
            tube((-0.36, 0.5, 0.15), (0, 0.46, 0.11), (0.3, 0.52, 0.15)),
            *leg(-0.37, 0.45, -0.38 + step, 0.105),
            *leg(0.3, 0.46, 0.3 - step, 0.08),
            tube((0.3, 0.54, 0.13), (0.42, 0.74, 0.11)),
        ]
    elif pose == "sit":
        rump, head = (-0.22, 0.1), (0.1, 0.9)
        body = [
            tube((-0.13, 0.22, 0.2), (-0.08, 0.4, 0.2), (0.06, 0.68, 0.12)),
            *leg(0.13, 0.46, 0.17, 0.065, FAR),
            *leg(0.05, 0.46, 0.06, 0.07),
            tube((-0.2, 0.17, 0.14), (-0.12, 0.2, 0.14)),
            tube((-0.16, 0.045, 0.045), (0.04, 0.045, 0.045)),
        ]
    else:
        rump, head = (-0.42, 0.14), (0.38, 0.44)
        body = [
            tube((0.3, 0.06, 0.05), (0.56, 0.05, 0.05), paint=FAR),
            tube((-0.34, 0.19, 0.17), (0, 0.21, 0.14), (0.3, 0.21, 0.15)),
            tube((-0.38, 0.15, 0.13), (-0.28, 0.15, 0.13)),
            tube((0.22, 0.07, 0.06), (0.5, 0.05, 0.05)),
        ]
    body.insert(0, tube(*((rump[0] + x, rump[1] + y, radius) for x, y, radius in tail)))
    return [shape.moved(np.diag((1, tall, stout))) for shape in body], (head[0], head[1] * tall)


def with_small_head(rng: Rng, body: list[Shape], at: Point, ear: list[Station], eyes: list[Shape]) -> Animal:
    """Add a round head seen from the front, with short muzzle, whiskers, pricked ears; eyes: relative to the head."""
    x, y, look = *at, at[0] + rng.uniform(0, 0.05)
    skull = [tube((x - 0.04, y, 0.185), (x + 0.04, y, 0.185)), *pair(look, y, (0.04, -0.085, 0.058), paint=LIGHT)]
    face = [
        *pair(x, y + 0.04, *((dx, dy, radius / 2) for dx, dy, radius in ear), paint=PINK),
        *(shape.moved(np.eye(3), (look, y)) for shape in eyes),
        *pair(look, y, (0, -0.08, 0.007), (0.015, -0.15, 0.007), (0.06, -0.11, 0.006), paint=DARK),
        tube((look - 0.02, y - 0.055, 0.018), (look, y - 0.08, 0.022), (look + 0.02, y - 0.055, 0.018), paint=PINK),
    ]
    for slope in (-0.05, 0.0, 0.04):
        face += pair(look, y - 0.085, (0.09, 0, 0.004), (0.29, slope, 0.002), paint=WHITE)
    return [*body, *pair(x, y, *ear), *skull], face


def cat(rng: Rng, pose: str) -> Animal:
    """A slim body, a long thin tail, triangular ears, large eyes with slit pupils."""
    curl, iris = rng.uniform(-0.2, 0.2), EYES[rng.integers(len(EYES))]
    tail = (0, 0, 0.06), (-0.4, 0, 0.05), (-0.45, 0.4, 0.045), (-0.2 + curl, 0.7, 0.03)
    eyes = [shape for x in (-0.095, 0.095) for shape in eye(x, 0.02, 0.05, iris, 0.024)]
    return with_small_head(rng, *mammal(rng, pose, 1.0, 1.0, *tail), [(0.1, 0.06, 0.1), (0.18, 0.34, 0.01)], eyes)


def rabbit(rng: Rng, pose: str) -> Animal:
    """A round body close to the ground, a tiny tail, ears longer than the head."""
    body, at = mammal(rng, pose, 0.62 if pose == "stand" else 0.85, 1.4, (-0.1, 0.05, 0.07))
    eyes = [shape for x in (-0.125, 0.125) for shape in eye(x, 0.035, 0.042, BROWN)]
    ear = [(0.07, 0.1, 0.045), (0.1, 0.35, 0.13), (0.13 + rng.uniform(-0.04, 0.08), rng.uniform(0.58, 0.7), 0.03)]
    return with_small_head(rng, body, at, ear, eyes)


def dog(rng: Rng, pose: str) -> Animal:
    """A stout body, a short tail; a head turned by a random amount, with a long muzzle and hanging ears."""
    wag, turn, shade = rng.uniform(-0.1, 0.1), rng.uniform(0.2, 1), rng.uniform(0.55, 0.8)
    body, (x, y) = mammal(rng, pose, 1.12, 1.4, (-0.05, 0.06, 0.065), (-0.2, 0.15, 0.05), (-0.25 + wag, 0.3, 0.03))
    tip_x, tip_y = x + 0.05 + 0.3 * turn, y - 0.1 - 0.04 * (1 - turn)  # tip of the muzzle
    ear = np.array([(-0.1, 0.14, 0.05), (-0.24, 0.16, 0.1), (-0.24, rng.uniform(-0.24, -0.14), 0.07)])
    body += [
        tube(*(ear * (0.6 * turn - 1.1, 1, 1) + (x, y, 0)), paint=shade * FAR),
        tube((x, y, 0.195)),
        tube((x + 0.08 * turn, y - 0.06, 0.135), (tip_x, tip_y, 0.088), paint=LIGHT),
        tube(*(ear + (x, y, 0)), paint=shade),
    ]
    nose, corner = tip_x + 0.05 * turn, tip_x - 0.04 - 0.14 * turn
    face = [
        tube((tip_x, tip_y - 0.045, 0.035), (tip_x, tip_y - rng.uniform(0.05, 0.18), 0.04), paint=PINK),
        tube((corner, tip_y - 0.065, 0.01), (tip_x - 0.03, tip_y - 0.06, 0.02), (nose, tip_y - 0.03, 0.01), paint=DARK),
        tube((nose - 0.015, tip_y + 0.055, 0.045), (nose + 0.015, tip_y + 0.055, 0.045), paint=DARK),
    ]
    for side in (-1, 1) if turn < 0.75 else (-1,):
        face += eye(x + 0.1 * turn + 0.085 * side * (1.15 - 0.5 * turn), y + 0.065, 0.036, BROWN)
    return body, face


def bird(rng: Rng, pose: str) -> Animal:
    """Seen from the side: a drop-shaped body on two thin legs, tail, wing and beak."""
    tilt, drop = {"stand": (0.05, 0), "sit": (0.45, 0.02), "lie": (0.05, -0.28)}[pose]
    body = [
        tube((-0.3, 0.54, 0.1), (-0.88, rng.uniform(0.47, 0.63), 0.06), paint=FAR),
        tube((-0.42, 0.53, 0.09), (-0.1, 0.4, 0.26), (0.2, 0.58, 0.21)),
        tube((0.18, 0.62, 0.19), (0.28, 0.8, 0.15), (0.33, 0.9, 0.16)),
        tube((0.2, 0.42, 0.1), (0.28, 0.54, 0.12), paint=LIGHT),
        tube((0.04, 0.52, 0.14), (-0.3, 0.4, 0.17), (-0.76, rng.uniform(0.4, 0.5), 0.02), paint=0.7),
    ]
    face = [tube((0.46, 0.88, 0.06), (0.7, 0.85, 0.008), paint=ORANGE), *eye(0.4, 0.94, 0.036, BROWN)]
    shear = np.array([(1, tilt, 0), (0, 1, 0), (0, 0, 1)])  # raises the head, lowers the tail
    body, face = ([shape.moved(shear, (0, drop)) for shape in shapes] for shapes in (body, face))
    legs = [shape for hip, paint in ((0.06, FAR), (-0.06, 0.9)) for shape in leg(hip, 0.4, hip, 0.035, paint)]
    return (body if pose == "lie" else legs + body), face


ANIMALS = {"cat": cat, "dog": dog, "rabbit": rabbit, "bird": bird}


def paint_coat(canvas: Image.Image, rng: Rng, body: list[Shape], pattern: str, scale: float) -> Image.Image:
    """Paint shapes (in pixels) with a patterned, furry coat; scale is pixels per unit.

    Returns the coat's mask: 255 inside, 0 outside, of the canvas's size.
    """
    size = canvas.size
    parts = Image.new("L", size)  # number of the topmost shape
    for part, shape in enumerate(body, 1):
        shape.draw(ImageDraw.Draw(parts), part)
    creases = np.asarray(parts) != np.asarray(parts.filter(ImageFilter.MaxFilter(3)))  # where two shapes meet
    # Hairs: every pixel is fetched from a random place nearby.
    shake = np.stack([noise(rng, size, 2), noise(rng, size, 2)]) * 0.009 * scale
    y, x = (np.indices(size[::-1]) + shake).astype(int).clip(0, np.reshape(size[::-1], (2, 1, 1)) - 1)
    parts = np.asarray(parts)[y, x]
    mask = Image.fromarray(np.uint8(parts > 0) * 255)
    ink = Image.fromarray(np.uint8(creases[y, x]) * 255).filter(ImageFilter.BoxBlur(0.006 * scale))

    # Shading: brighter above, darker below.
    solid = np.asarray(mask.filter(ImageFilter.BoxBlur(0.06 * scale)), np.float32) / 255
    light = 0.8 + 0.2 * solid + 0.25 * (solid - np.roll(solid, round(0.05 * scale), 0))
    light *= 1 - np.asarray(ink) * np.float32(0.4 / 255)
    light *= 1 + 0.06 * noise(rng, size, 1) + 0.05 * noise(rng, size, 4)
    light *= np.array([0, *(shape.paint for shape in body)], np.float32)[parts]
    colours = coat_colours(rng, size, pattern, scale) * light[..., None]  # (H, W, 3)
    canvas.paste(Image.fromarray(np.uint8(colours.clip(0, 255))), mask=mask)
    return mask


def coat_colours(rng: Rng, size: tuple[int, int], pattern: str, scale: float) -> np.ndarray:
    """One of COATS with a second colour in the pattern: (H, W, 3)."""
    first, second = np.array(COATS, np.float32)[rng.choice(len(COATS), 2, replace=False)]
    cell, contrast, bias = PATTERNS[pattern]
    amount = contrast * noise(rng, size, cell * scale)
    if pattern == "striped":
        second, amount = first * 0.55, np.sin(np.arange(size[0]) * (rng.uniform(45, 65) / scale) + amount)
    return first + (second - first) * (0.5 + 2 * (amount + bias)).clip(0, 1)[..., None]


def noise(rng: Rng, size: tuple[int, int], cell: float) -> np.ndarray:
    """Gaussian noise, float32 (H, W), smooth over `cell` pixels."""
    shape = [int(side / cell) + 2 for side in size[::-1]]
    coarse = Image.fromarray(rng.standard_normal(shape, dtype=np.float32))
    return np.asarray(coarse.resize(size, Image.Resampling.BICUBIC))
