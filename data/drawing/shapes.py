"""The shapes that everything is drawn with: tubes, ovals and rounded polygons."""

from dataclasses import dataclass

import numpy as np
from PIL import ImageDraw

Rng = np.random.Generator
Draw = ImageDraw.ImageDraw
Colour = tuple[int, int, int]


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
