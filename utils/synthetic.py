"""The pictures of the built-in data set: cats and dogs, drawn in a room or a garden.

Coats are shared by both species; ears, muzzle, tail and build tell them apart.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Rng = np.random.Generator
Draw = ImageDraw.ImageDraw
Colour = tuple[int, int, int]


class Breed(NamedTuple):
    name: str  # cats' names have a capital letter, as in Oxford-IIIT Pet
    species: int  # 1 cat, 2 dog
    pattern: str  # of the coat


BREEDS = (
    Breed("Cat_Calico", 1, "patches"),
    Breed("Cat_Plain", 1, "plain"),
    Breed("Cat_Spotted", 1, "spots"),
    Breed("Cat_Tabby", 1, "stripes"),
    Breed("dog_brindle", 2, "stripes"),
    Breed("dog_pied", 2, "patches"),
    Breed("dog_plain", 2, "plain"),
    Breed("dog_spotted", 2, "spots"),
)

OVERSAMPLING = 2  # pictures are drawn this much larger: smooth edges
PET, BACKGROUND, BOUNDARY = 1, 2, 3
COATS = (  # shared by both species: the colour must not give them away
    (216, 140, 70),
    (232, 204, 158),
    (150, 152, 160),
    (70, 66, 70),
    (134, 92, 60),
    (240, 236, 228),
    (98, 72, 58),
    (196, 172, 140),
)


def draw_picture(rng: Rng, breed: Breed, sides: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    """One or two animals of a breed in a room or a garden: the picture and its trimap, of one size.

    sides: shortest and longest side in pixels.
    """
    width, height = (int(side) for side in rng.integers(sides[0], sides[1], 2, endpoint=True))
    canvas = Image.new("RGB", (width * OVERSAMPLING, height * OVERSAMPLING))
    silhouette = Image.new("L", canvas.size)
    draw_scene = draw_room if rng.random() < 0.5 else draw_garden
    draw_scene(canvas, rng, horizon=int(canvas.height * rng.uniform(0.5, 0.75)))
    places = [(0.0, 1.0)] if rng.random() < 0.75 else [(0.0, 0.6), (0.4, 1.0)]
    for left, right in places:
        draw_animal(canvas, silhouette, rng, breed, left, right)
    return develop(canvas, rng, (width, height)), make_trimap(silhouette, (width, height))


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


def make_trimap(silhouette: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The animals' outline as a band two pixels wide between pet and background."""
    pet = silhouette.resize(size, Image.Resampling.BOX).point(lambda value: 255 * (value > 127))
    trimap = np.full((size[1], size[0]), BOUNDARY, np.uint8)
    trimap[np.asarray(pet.filter(ImageFilter.MinFilter(3))) > 0] = PET
    trimap[np.asarray(pet.filter(ImageFilter.MaxFilter(3))) == 0] = BACKGROUND
    return Image.fromarray(trimap)


# -------------------------------------------------------------------------------- shapes


@dataclass(frozen=True)
class Shape:
    """A tube (discs along its points) or, without radii, a filled outline.

    x to the right, y up, the ground at 0, and an animal's trunk about one unit long, until it is moved into
    a picture: pixels, y down.
    """

    points: np.ndarray  # (N, 2)
    radii: np.ndarray | None  # (N,)
    paint: float | Colour  # brightness of the coat, or a colour

    def moved(self, turn: np.ndarray, scale: float, offset: np.ndarray) -> "Shape":
        """Turned by a matrix (2, 2), magnified, then shifted."""
        radii = None if self.radii is None else self.radii * scale
        return Shape(self.points @ turn * scale + offset, radii, self.paint)


def tube(*stations: tuple[float, float, float], paint: float | Colour = 1.0) -> Shape:
    """A smooth tube through stations (x, y, radius)."""
    count = len(stations)
    polynomial = np.linalg.solve(np.vander(np.linspace(0, 1, count)), np.array(stations))
    curve = np.vander(np.linspace(0, 1, 28), count) @ polynomial  # (28, 3)
    return Shape(curve[:, :2], curve[:, 2], paint)


def oval(x: float, y: float, rx: float, ry: float, tilt: float = 0.0, paint: float | Colour = 1.0) -> Shape:
    """An ellipse around (x, y), turned by tilt radians."""
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    points = np.stack([rx * np.cos(angles), ry * np.sin(angles)], 1)
    turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    return Shape(points @ turn + (x, y), None, paint)


def flap(*corners: tuple[float, float], paint: float | Colour = 1.0, rounds: int = 3) -> Shape:
    """A polygon with rounded corners: Chaikin's corner cutting."""
    points = np.array(corners)
    for _ in range(rounds):
        following = np.roll(points, -1, 0)
        points = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], 1).reshape(-1, 2)
    return Shape(points, None, paint)


def stamp(draw: Draw, shape: Shape, fill: int | Colour, grow: float = 0.0) -> None:
    """Fill a shape that is in pixels already, made wider by `grow` pixels on all sides."""
    if shape.radii is None:
        outline = [tuple(point) for point in shape.points]
        draw.polygon(outline, fill)
        if grow:
            draw.line([*outline, *outline[:2]], fill, round(2 * grow), joint="curve")
    else:
        for (x, y), radius in zip(shape.points, shape.radii + grow, strict=True):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill)


def extent(shapes: list[Shape]) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest x and y among the shapes' points."""
    points = np.concatenate([shape.points for shape in shapes])
    return points.min(0), points.max(0)


# ------------------------------------------------------------------------------- animals

DARK, BROWN, GLOSS, WHITE = (34, 28, 30), (104, 64, 34), (170, 170, 178), (250, 248, 244)
PINK, TONGUE = (222, 150, 146), (226, 104, 116)
FAR, LIGHT = 0.72, 1.22  # brightness of the legs on the far side, and of the muzzle
EYES = ((150, 190, 70), (226, 180, 60), (110, 176, 210), (120, 200, 150))
POSES = ("stand", "sit", "lie")

# An animal looks to the right and comes as three lists of shapes: coat, face, whiskers. Each list is painted in
# its order, so a body begins with the tail and the far legs.
Animal = tuple[list[Shape], list[Shape], list[Shape]]


def cat(rng: Rng, pose: str) -> Animal:
    """A slim body, a long thin tail, a round head with pricked ears."""
    step, curl = rng.uniform(-0.12, 0.12), rng.uniform(-0.2, 0.2)
    if pose == "stand":
        body = [
            tube((-0.42, 0.52, 0.06), (-0.74, 0.56, 0.05), (-0.78, 0.92, 0.045), (-0.62 + curl, 1.2, 0.035)),
            *leg(-0.26, 0.44, -0.22 - step, 0.085, FAR),
            *leg(0.22, 0.44, 0.28 + step, 0.07, FAR),
            tube((-0.36, 0.5, 0.15), (-0.02, 0.49, 0.125), (0.3, 0.52, 0.14)),
            *leg(-0.37, 0.45, -0.38 + step, 0.105),
            *leg(0.3, 0.46, 0.3 - step, 0.08),
            tube((0.3, 0.54, 0.13), (0.4, 0.72, 0.11)),
        ]
        neck = (0.46, 0.84)
    elif pose == "sit":
        body = [
            tube((-0.2, 0.1, 0.055), (-0.5, 0.07, 0.05), (-0.62, 0.3 + curl, 0.045), (-0.5 + curl, 0.62, 0.035)),
            tube((-0.13, 0.22, 0.21), (-0.06, 0.4, 0.18), (0.06, 0.68, 0.12)),
            *leg(0.13, 0.46, 0.17, 0.065, FAR),
            *leg(0.05, 0.46, 0.06, 0.07),
            oval(-0.17, 0.17, 0.17, 0.16, 0.3),
            oval(-0.05, 0.04, 0.12, 0.045),
        ]
        neck = (0.1, 0.9)
    else:
        body = [
            tube((-0.42, 0.14, 0.06), (-0.74, 0.1, 0.05), (-0.86, 0.3, 0.045), (-0.72 + curl, 0.5, 0.035)),
            tube((0.3, 0.06, 0.05), (0.56, 0.05, 0.05), paint=FAR),
            tube((-0.34, 0.19, 0.18), (0.0, 0.21, 0.16), (0.3, 0.21, 0.14)),
            oval(-0.33, 0.15, 0.17, 0.14),
            tube((0.22, 0.07, 0.06), (0.5, 0.05, 0.05)),
        ]
        neck = (0.38, 0.42)
    head, face, whiskers = cat_head(rng, *neck)
    return body + head, face, whiskers


def cat_head(rng: Rng, x: float, y: float) -> Animal:
    """The head around (x, y), seen from the front: a short muzzle, large eyes, upright triangular ears."""
    middle, width, pupil = x + rng.uniform(0, 0.05), rng.uniform(0.21, 0.245), rng.uniform(0.012, 0.028)
    iris = EYES[rng.integers(len(EYES))]
    head, face, whiskers = [], [], []
    for side in (-1, 1):
        ear = np.array([(0.03, 0.13), (0.1, 0.27), (0.2, 0.4), (0.22, 0.2), (0.2, 0.02)]) * (side, 1)
        head.append(flap(*(ear + (x, y)), rounds=2))
        face.append(flap(*(ear * (0.5, 0.5) + (x + 0.075 * side, y + 0.125)), paint=PINK))
    head.append(oval(x, y, width, 0.185))
    for side in (-1, 1):
        eye = middle + 0.095 * side
        head.append(oval(middle + 0.045 * side, y - 0.085, 0.06, 0.045, paint=LIGHT))
        face += [
            oval(eye, y + 0.02, 0.056, 0.05, 0.25 * side, paint=DARK),
            oval(eye, y + 0.02, 0.047, 0.042, 0.25 * side, paint=iris),
            oval(eye, y + 0.02, pupil, 0.038, paint=DARK),
            oval(eye + 0.014, y + 0.036, 0.012, 0.012, paint=WHITE),
            tube(
                (middle, y - 0.1, 0.007),
                (middle + 0.025 * side, y - 0.126, 0.007),
                (middle + 0.06 * side, y - 0.11, 0.006),
                paint=DARK,
            ),
        ]
        for slope in (-0.05, 0.0, 0.04):
            start, end = middle + 0.09 * side, middle + 0.29 * side
            whiskers.append(tube((start, y - 0.085, 0.004), (end, y - 0.08 + slope, 0.002), paint=WHITE))
    face.append(flap((middle - 0.04, y - 0.04), (middle + 0.04, y - 0.04), (middle, y - 0.1), paint=PINK, rounds=2))
    return head, face, whiskers


def dog(rng: Rng, pose: str) -> Animal:
    """A barrel of a body on thick legs, a stubby tail, a head with muzzle and hanging ears."""
    step, wag = rng.uniform(-0.12, 0.12), rng.uniform(-0.1, 0.1)
    if pose == "stand":
        body = [
            tube((-0.46, 0.62, 0.09), (-0.62, 0.72, 0.075), (-0.68 + wag, 0.86, 0.05)),
            *leg(-0.28, 0.46, -0.24 - step, 0.11, FAR),
            *leg(0.22, 0.44, 0.28 + step, 0.1, FAR),
            tube((-0.36, 0.56, 0.2), (-0.02, 0.53, 0.2), (0.3, 0.56, 0.225)),
            *leg(-0.38, 0.48, -0.38 + step, 0.14),
            *leg(0.31, 0.48, 0.31 - step, 0.115),
            tube((0.34, 0.62, 0.19), (0.46, 0.84, 0.14)),
        ]
        neck = (0.52, 0.98)
    elif pose == "sit":
        body = [
            tube((-0.32, 0.14, 0.085), (-0.5, 0.16, 0.07), (-0.6, 0.3 + wag, 0.05)),
            tube((-0.16, 0.26, 0.25), (-0.06, 0.48, 0.24), (0.08, 0.76, 0.19)),
            *leg(0.19, 0.52, 0.24, 0.095, FAR),
            *leg(0.06, 0.52, 0.08, 0.105),
            oval(-0.2, 0.2, 0.2, 0.19, 0.3),
            oval(-0.06, 0.05, 0.15, 0.055),
        ]
        neck = (0.15, 1.06)
    else:
        body = [
            tube((-0.46, 0.2, 0.085), (-0.64, 0.24, 0.07), (-0.74, 0.38 + wag, 0.05)),
            tube((0.3, 0.08, 0.075), (0.7, 0.065, 0.065), paint=FAR),
            tube((-0.36, 0.24, 0.22), (0.0, 0.24, 0.22), (0.3, 0.28, 0.22)),
            oval(-0.36, 0.19, 0.2, 0.17),
            tube((0.2, 0.09, 0.085), (0.6, 0.065, 0.07)),
        ]
        neck = (0.4, 0.6)
    head, face, whiskers = dog_head(rng, *neck)
    return body + head, face, whiskers


def dog_head(rng: Rng, x: float, y: float) -> Animal:
    """The head around (x, y), turned from nearly the front (0.2) to the side (1): muzzle, black nose, hanging ears."""
    turn, ear_paint = rng.uniform(0.2, 1), rng.uniform(0.55, 0.8)
    tip_x, tip_y = x + 0.05 + 0.3 * turn, y - 0.1 - 0.04 * (1 - turn)  # of the muzzle
    ear = np.array([(-0.02, 0.2), (-0.14, 0.19), (-0.25, 0.02), (-0.28, -0.18), (-0.2, -0.24), (-0.12, -0.1)])
    ear *= (0.9, rng.uniform(0.85, 1.15))
    head = [
        flap(*(ear * (0.6 * turn - 1.1, 1) + (x + 0.02, y)), paint=ear_paint * FAR),
        oval(x, y, 0.2, 0.19),
        tube((x + 0.08 * turn, y - 0.06, 0.135), (tip_x, tip_y, 0.088), paint=LIGHT),
        flap(*(ear + (x - 0.04, y)), paint=ear_paint),
    ]
    face = []
    if rng.random() < 0.5:
        face.append(tube((tip_x, tip_y - 0.045, 0.035), (tip_x, tip_y - 0.175, 0.04), paint=TONGUE))
    corner = (tip_x - 0.04 - 0.14 * turn, tip_y - 0.065, 0.008)
    nose_x, nose_y = tip_x + 0.05 * turn, tip_y + 0.055
    face += [
        tube(corner, (tip_x - 0.03, tip_y - 0.057, 0.008), (tip_x + 0.06, tip_y - 0.03, 0.008), paint=DARK),
        oval(nose_x, nose_y, 0.06, 0.045, paint=DARK),
        oval(nose_x + 0.012, nose_y + 0.017, 0.014, 0.01, paint=GLOSS),
    ]
    for side in (-1, 1) if turn < 0.75 else (-1,):
        eye_x, eye_y = x + 0.1 * turn + 0.085 * side * (1.15 - 0.5 * turn), y + 0.065
        face += [
            oval(eye_x, eye_y, 0.034, 0.036, paint=DARK),
            oval(eye_x, eye_y, 0.025, 0.027, paint=BROWN),
            oval(eye_x, eye_y, 0.015, 0.018, paint=DARK),
            oval(eye_x + 0.01, eye_y + 0.012, 0.009, 0.009, paint=WHITE),
        ]
    return head, face, []


def leg(hip: float, height: float, foot: float, radius: float, paint: float = 1.0) -> list[Shape]:
    """A leg from (hip, height) down to the ground at foot, and its paw."""
    knee = ((hip + foot) / 2 - 0.02, height / 2, radius * 0.78)
    return [
        tube((hip, height, radius), knee, (foot, 0.06, radius * 0.66), paint=paint),
        oval(foot + 0.03, 0.04, radius * 0.95, 0.045, paint=paint),
    ]


def draw_animal(
    canvas: Image.Image, silhouette: Image.Image, rng: Rng, breed: Breed, left: float, right: float
) -> None:
    """Draw an animal into the picture between left and right (0 to 1), and into the silhouette with 255."""
    portrait = right - left == 1 and rng.random() < 0.2
    animal = (cat if breed.species == 1 else dog)(rng, "sit" if portrait else POSES[rng.integers(len(POSES))])
    mirror, tilt = rng.choice((-1.0, 1.0)), rng.normal(0, 0.06)
    turn = np.array([[mirror * np.cos(tilt), np.sin(tilt)], [mirror * np.sin(tilt), -np.cos(tilt)]])
    focus = animal[1] if portrait else animal[0]  # what shall be in the picture: the face, or all of it
    scale, offset = fit([shape.moved(turn, 1, 0) for shape in focus], rng, canvas.size, left, right, portrait)
    coat, face, whiskers = ([shape.moved(turn, scale, offset) for shape in shapes] for shapes in animal)

    draw_shadow(canvas, coat, scale)
    paint_coat(canvas, silhouette, rng, coat, breed.pattern, scale)
    for detail in face + whiskers:
        stamp(ImageDraw.Draw(canvas), detail, detail.paint)
    for detail in face:
        stamp(ImageDraw.Draw(silhouette), detail, 255)


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


def paint_coat(
    canvas: Image.Image, silhouette: Image.Image, rng: Rng, coat: list[Shape], pattern: str, scale: float
) -> None:
    """Paint shapes (in pixels) one over the other with a patterned, furry coat; scale is pixels per unit."""
    low, high = extent(coat)
    margin = 0.3 * scale  # radii, blur
    left, top = (int(value) for value in (low - margin).clip(0))
    right, bottom = (int(value) for value in np.minimum(high + margin, canvas.size))
    width, height = size = right - left, bottom - top
    labels, creases = Image.new("L", size), Image.new("L", size)  # which shape is seen; where one ends on another
    draw_label, draw_crease = ImageDraw.Draw(labels), ImageDraw.Draw(creases)
    for label, shape in enumerate(coat, 1):
        shape = shape.moved(np.eye(2), 1, (-left, -top))
        stamp(draw_crease, shape, 255, grow=0.01 * scale)
        stamp(draw_crease, shape, 0)
        stamp(draw_label, shape, label)

    # Hairs: every pixel is fetched from a place nearby.
    y, x = np.indices((height, width), np.float32)
    y = (y + noise(rng, size, 2) * (0.009 * scale)).astype(np.int32).clip(0, height - 1)
    x = (x + noise(rng, size, 2) * (0.009 * scale)).astype(np.int32).clip(0, width - 1)
    nearby = y * width + x
    labels = np.asarray(labels).take(nearby)  # (H, W)
    mask = Image.fromarray((labels > 0).astype(np.uint8) * 255)
    ink = Image.fromarray(np.asarray(creases).take(nearby)).filter(ImageFilter.BoxBlur(0.006 * scale))

    # Round: brighter above, darker below.
    solid = np.asarray(mask.filter(ImageFilter.BoxBlur(0.06 * scale)), np.float32) / 255
    light = 0.8 + 0.2 * solid + 0.25 * (solid - np.roll(solid, round(0.05 * scale), 0))
    light *= 1 - np.asarray(ink, np.float32) * (0.4 / 255)
    light *= 1 + 0.06 * noise(rng, size, 1) + 0.05 * noise(rng, size, 4)
    light *= np.array([0, *(shape.paint for shape in coat)], np.float32)[labels]
    colours = coat_colours(rng, size, pattern, scale) * light[..., None]  # (H, W, 3)
    canvas.paste(Image.fromarray(colours.clip(0, 255).astype(np.uint8)), (left, top), mask)
    silhouette.paste(255, (left, top, right, bottom), mask)


def coat_colours(rng: Rng, size: tuple[int, int], pattern: str, scale: float) -> np.ndarray:
    """One of COATS, a second colour laid over it in the pattern: (H, W, 3)."""
    first, second = np.array(COATS, np.float32)[rng.choice(len(COATS), 2, replace=False)]
    if np.abs(first - second).sum() < 150:
        second = first * 0.5 if first.sum() > 300 else first + 90
    if pattern == "stripes":
        x = np.arange(size[0], dtype=np.float32) / scale
        amount = np.sin(x * rng.uniform(45, 65) + 2.5 * noise(rng, size, 0.15 * scale)) - 0.2
        second = first * 0.55
    elif pattern == "patches":
        amount = 3 * noise(rng, size, 0.22 * scale)
    elif pattern == "spots":
        amount = 2.5 * noise(rng, size, 0.06 * scale) - 1.2
    else:
        amount = noise(rng, size, 0.3 * scale) * 0.2 - 0.4
    amount = (0.5 + 2 * amount).clip(0, 1)[..., None]
    return first + (second - first) * amount


def noise(rng: Rng, size: tuple[int, int], cell: float) -> np.ndarray:
    """Smooth Gaussian noise, float32 (H, W), whose bumps are `cell` pixels apart."""
    shape = [int(side / cell) + 2 for side in size[::-1]]
    coarse = Image.fromarray(rng.standard_normal(shape, dtype=np.float32))
    return np.asarray(coarse.resize(size, Image.Resampling.BILINEAR if cell < 4 else Image.Resampling.BICUBIC))


# ------------------------------------------------------------------------------- scenes

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
        draw.ellipse((knob - 3, y - 0.4 * size, knob + 3, y - 0.4 * size + 6), DARK)


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
