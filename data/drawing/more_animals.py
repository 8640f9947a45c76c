"""Rabbits, birds, sheep and tortoises as lists of shapes, in the poses of cats and dogs."""

import numpy as np

from data.drawing.animals import BROWN, DARK, FAR, LIGHT, PINK, WHITE, Animal, leg
from data.drawing.shapes import Colour, Rng, Shape, flap, oval, tube

BEAKS = ((236, 160, 50), (226, 120, 60), (90, 84, 84))


def rabbit(rng: Rng, pose: str) -> Animal:
    """A round body on large hind feet, a tuft of a tail, ears as long as the head."""
    if pose == "stand":
        body = [
            oval(-0.52, 0.3, 0.11, 0.1, paint=LIGHT),
            *leg(0.24, 0.28, 0.32, 0.07, FAR),
            tube((-0.3, 0.28, 0.25), (-0.02, 0.34, 0.25), (0.28, 0.34, 0.18)),
            *leg(0.2, 0.28, 0.22, 0.075),
            oval(-0.28, 0.23, 0.22, 0.19, 0.2),
            oval(-0.16, 0.05, 0.22, 0.05),
        ]
        neck = (0.42, 0.56)
    elif pose == "sit":
        body = [
            oval(-0.36, 0.14, 0.11, 0.1, paint=LIGHT),
            tube((-0.1, 0.26, 0.26), (-0.04, 0.5, 0.21), (0.03, 0.7, 0.14)),
            tube((0.1, 0.56, 0.06), (0.24, 0.5, 0.05), (0.28, 0.42, 0.05), paint=FAR),
            tube((0.02, 0.54, 0.065), (0.16, 0.47, 0.055), (0.2, 0.38, 0.05)),
            oval(-0.1, 0.2, 0.22, 0.19, 0.2),
            oval(0.04, 0.05, 0.25, 0.05),
        ]
        neck = (0.06, 0.9)
    else:
        body = [
            oval(-0.55, 0.2, 0.1, 0.09, paint=LIGHT),
            tube((0.26, 0.06, 0.05), (0.5, 0.05, 0.05), paint=FAR),
            tube((-0.34, 0.22, 0.21), (0.0, 0.22, 0.19), (0.3, 0.22, 0.14)),
            oval(-0.32, 0.17, 0.2, 0.16, 0.2),
            oval(-0.24, 0.05, 0.24, 0.05),
            tube((0.2, 0.07, 0.06), (0.44, 0.05, 0.05)),
        ]
        neck = (0.38, 0.42)
    head, face, whiskers = rabbit_head(rng, *neck)
    return body + head, face, whiskers


def rabbit_head(rng: Rng, x: float, y: float) -> Animal:
    """The head around (x, y), seen from the front: round, with eyes at its sides and long upright ears."""
    middle, long, lean = x + rng.uniform(0, 0.04), rng.uniform(0.46, 0.58), rng.uniform(-0.16, 0.06)
    head, face, whiskers = [], [], []
    for side in (-1, 1):
        for shapes, width, paint in ((head, 0.078, 1.0), (face, 0.04, PINK)):
            foot, tip = (x + 0.08 * side, y + 0.12), (x + 0.13 * side + lean, y + 0.12 + long * (0.8 + 2.5 * width))
            half = ((foot[0] + tip[0]) / 2 + 0.03 * side, (foot[1] + tip[1]) / 2)
            shapes.append(tube((*foot, 0.6 * width), (*half, width), (*tip, 0.35 * width), paint=paint))
    head.append(oval(x, y, 0.2, 0.18))
    for side in (-1, 1):
        head.append(oval(middle + 0.055 * side, y - 0.085, 0.075, 0.06, paint=LIGHT))
        face += eye(middle + 0.125 * side, y + 0.035, 0.042, BROWN)
        for slope in (-0.04, 0.02):
            start, end = middle + 0.1 * side, middle + 0.28 * side
            whiskers.append(tube((start, y - 0.08, 0.004), (end, y - 0.075 + slope, 0.002), paint=WHITE))
    face += [
        flap((middle - 0.04, y - 0.03), (middle + 0.04, y - 0.03), (middle, y - 0.085), paint=PINK, rounds=2),
        tube((middle, y - 0.08, 0.007), (middle, y - 0.12, 0.007), paint=DARK),
        oval(middle, y - 0.135, 0.026, 0.024, paint=WHITE),
    ]
    return head, face, whiskers


def bird(rng: Rng, pose: str) -> Animal:
    """A drop of a body on two thin legs, a fan of a tail, a wing, a beak; from the side."""
    fan, lift = rng.uniform(-0.06, 0.1), rng.uniform(-0.05, 0.05)
    trunk = [
        flap((-0.3, 0.62), (-0.86, 0.62 + fan), (-0.9, 0.46 + fan), (-0.3, 0.44), paint=FAR),
        tube((-0.38, 0.52, 0.1), (-0.12, 0.5, 0.22), (0.2, 0.56, 0.22)),
        tube((0.18, 0.62, 0.19), (0.3, 0.82, 0.14)),
        oval(0.34, 0.9, 0.17, 0.16),
        oval(0.24, 0.48, 0.14, 0.16, 0.4, paint=LIGHT),
        flap((0.14, 0.68), (0.16, 0.4), (-0.18, 0.32), (-0.7, 0.5 + lift), (-0.36, 0.64), paint=0.82),
        flap((-0.02, 0.5), (-0.1, 0.34), (-0.3, 0.34), (-0.74, 0.48 + lift), (-0.4, 0.52), paint=0.64),
    ]
    face = [
        flap((0.44, 0.95), (0.74, 0.86), (0.45, 0.81), paint=BEAKS[rng.integers(len(BEAKS))], rounds=1),
        tube((0.48, 0.875, 0.007), (0.64, 0.868, 0.006), paint=DARK),
        *eye(0.4, 0.94, 0.036, BROWN),
    ]
    tilt, drop, legs = {"stand": (0.0, 0.0, 1), "sit": (0.55, 0.02, 1), "lie": (0.05, -0.28, 0)}[pose]
    turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    offset = np.array((0, 0.5)) - np.array((0, 0.5)) @ turn + (0, drop)
    trunk, face = ([shape.moved(turn, 1, offset) for shape in shapes] for shapes in (trunk, face))
    stilts = [shape for hip, paint in ((0.06, FAR), (-0.06, 0.9)) for shape in bird_leg(hip, 0.4 + drop, paint)]
    return stilts * legs + trunk, face, []


def bird_leg(hip: float, height: float, paint: float) -> list[Shape]:
    """A thin leg from (hip, height) down to the ground, and its toes."""
    return [
        tube((hip, height, 0.05), (hip - 0.02, 0.16, 0.028), (hip + 0.02, 0.03, 0.026), paint=paint),
        tube((hip - 0.07, 0.025, 0.02), (hip + 0.16, 0.025, 0.024), paint=paint),
    ]


def sheep(rng: Rng, pose: str) -> Animal:
    """A cloud of wool on thin dark legs, a dark face with ears to the sides; it lies where others sit."""
    step, high = rng.uniform(-0.06, 0.06), 0.6 if pose == "stand" else 0.3
    wool = [bump(rng, 0.46 * np.cos(a), high + 0.2 * np.sin(a), 0.14) for a in np.linspace(0, 2 * np.pi, 15)[:-1]]
    wool.append(oval(0, high, 0.48, 0.22, paint=LIGHT))
    wool += [bump(rng, x, high + y, 0.11) for x, y in rng.uniform((-0.4, -0.14), (0.4, 0.14), (9, 2))]
    if pose == "stand":
        legs = [
            *leg(-0.24, 0.46, -0.22 - step, 0.07, 0.4),
            *leg(0.24, 0.46, 0.26 + step, 0.07, 0.4),
            *leg(-0.34, 0.46, -0.35 + step, 0.075, 0.5),
            *leg(0.33, 0.46, 0.34 - step, 0.075, 0.5),
        ]
    else:
        legs = [tube((0.2, 0.08, 0.06), (0.56, 0.05, 0.05), paint=0.4), oval(-0.3, 0.05, 0.2, 0.05, paint=0.5)]
    head, face = sheep_head(rng, 0.5, high + 0.26)
    return [bump(rng, -0.58, high + 0.04, 0.09), *legs, *wool, *head], face, []


def sheep_head(rng: Rng, x: float, y: float) -> tuple[list[Shape], list[Shape]]:
    """The head around (x, y): long and dark, ears to the sides, a cap of wool."""
    droop = rng.uniform(-0.25, 0.35)
    head = [oval(x + 0.2 * side, y + 0.04 - 0.1 * droop, 0.12, 0.055, -side * droop, paint=0.45) for side in (-1, 1)]
    head.append(tube((x, y + 0.04, 0.145), (x + 0.02, y - 0.1, 0.12), (x + 0.03, y - 0.19, 0.085), paint=0.55))
    head += [bump(rng, x + dx, y + 0.17 - abs(dx) * 0.4, 0.09) for dx in (-0.11, 0.11, 0.0)]
    face = [
        *(part for side in (-1, 1) for part in eye(x + 0.01 + 0.075 * side, y + 0.03, 0.032, (206, 170, 90))),
        *(oval(x + 0.03 + 0.03 * side, y - 0.19, 0.014, 0.018, 0.4 * side, paint=DARK) for side in (-1, 1)),
        tube((x - 0.02, y - 0.235, 0.006), (x + 0.03, y - 0.25, 0.006), (x + 0.08, y - 0.235, 0.006), paint=DARK),
    ]
    return head, face


def bump(rng: Rng, x: float, y: float, radius: float) -> Shape:
    """A lock of wool."""
    return oval(x, y, radius * rng.uniform(0.9, 1.15), radius * rng.uniform(0.85, 1.05), paint=rng.uniform(1.08, 1.26))


def tortoise(rng: Rng, pose: str) -> Animal:
    """A dome of plates on stumpy legs, a bald head on a long neck; from the side."""
    high = {"stand": 0.1, "sit": 0.08, "lie": 0.0}[pose]
    x, y = {"stand": (0.74, 0.42), "sit": (0.66, 0.6), "lie": (0.76, 0.2)}[pose]
    x, y = x + rng.uniform(-0.03, 0.03), y + rng.uniform(-0.03, 0.05)
    limbs = [
        tube((-0.48, high + 0.12, 0.06), (-0.72, high + 0.04, 0.02)),
        *leg(-0.26, high + 0.16, -0.2, 0.1, FAR),
        *leg(0.26, high + 0.16, 0.34, 0.1, FAR),
        tube((0.36, high + 0.2, 0.11), ((x + 0.36) / 2 + 0.06, (y + high) / 2 + 0.04, 0.09), (x, y, 0.1)),
        oval(x + 0.05, y + 0.01, 0.15, 0.12, paint=1.1),
    ]
    shell = [
        flap((-0.6, 0.12), (-0.58, 0.36), (-0.28, 0.6), (0.12, 0.62), (0.46, 0.4), (0.52, 0.12), paint=0.62),
        *(oval(px, py, rx, ry, tilt, paint=0.86) for px, py, rx, ry, tilt in PLATES),
        tube((-0.54, 0.16, 0.055), (-0.02, 0.12, 0.06), (0.48, 0.16, 0.055), paint=0.95),
    ]
    front = [*leg(-0.36, high + 0.14, -0.38, 0.115), *leg(0.3, high + 0.14, 0.32, 0.115)]
    face = [
        *eye(x + 0.08, y + 0.045, 0.032, (170, 140, 60)),
        tube((x + 0.06, y - 0.045, 0.007), (x + 0.14, y - 0.04, 0.007), (x + 0.19, y - 0.015, 0.006), paint=DARK),
        *(oval(foot + 0.02 + claw, 0.018, 0.016, 0.02, paint=HORN) for foot in (-0.38, 0.32) for claw in CLAWS),
    ]
    return limbs + front + [shape.moved(np.eye(2), 1, np.array((0, high))) for shape in shell], face, []


PLATES = (  # of the shell: x, y, radii, tilt
    (-0.41, 0.33, 0.1, 0.11, 0.5),
    (-0.17, 0.45, 0.13, 0.1, 0.2),
    (0.11, 0.45, 0.13, 0.1, -0.2),
    (0.34, 0.32, 0.1, 0.11, -0.5),
    (-0.22, 0.26, 0.1, 0.07, 0.0),
    (0.02, 0.26, 0.11, 0.07, 0.0),
    (0.2, 0.25, 0.06, 0.06, 0.0),
)
HORN, CLAWS = (226, 212, 184), (0.02, 0.065, 0.11)  # their colour, and where they are on a foot


def eye(x: float, y: float, radius: float, iris: Colour) -> list[Shape]:
    """An eye around (x, y): rim, iris, pupil and a glint."""
    return [
        oval(x, y, radius, radius, paint=DARK),
        oval(x, y, 0.75 * radius, 0.78 * radius, paint=iris),
        oval(x, y, 0.45 * radius, 0.5 * radius, paint=DARK),
        oval(x + 0.3 * radius, y + 0.35 * radius, 0.25 * radius, 0.25 * radius, paint=WHITE),
    ]
