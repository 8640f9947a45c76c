"""Cats and dogs as lists of shapes."""

import numpy as np

from data.drawing.shapes import Rng, Shape, flap, oval, tube

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
