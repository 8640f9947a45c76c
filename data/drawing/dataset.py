"""Write a data set of drawn pictures: cats and dogs in the Oxford layout, other classes in the folder layout."""

import difflib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from data.drawing.coats import PATTERNS
from data.drawing.pictures import ANIMALS, Subject, draw_picture
from utils.classes import VOID, named, write_classes
from utils.errors import UserError

CATS_AND_DOGS = {  # breed -> what it looks like; cats' names have a capital letter, as in Oxford-IIIT Pet
    "Cat_Calico": Subject("cat", "patches", 1),
    "Cat_Plain": Subject("cat", "plain", 1),
    "Cat_Spotted": Subject("cat", "spots", 1),
    "Cat_Tabby": Subject("cat", "stripes", 1),
    "dog_brindle": Subject("dog", "stripes", 2),
    "dog_pied": Subject("dog", "patches", 2),
    "dog_plain": Subject("dog", "plain", 2),
    "dog_spotted": Subject("dog", "spots", 2),
}


def check_classes(classes: Sequence[str]) -> None:
    """Raise UserError unless every class can be drawn and is named once."""
    known = f"known are {', '.join(ANIMALS)}"
    for name in classes:
        if name == "background":
            raise UserError(f"CLASSES = {','.join(classes)}: leave out background, it is always class 0; {known}")
        if name not in ANIMALS:
            near = difflib.get_close_matches(name.lower(), ANIMALS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UserError(f"CLASSES = {','.join(classes)}: cannot draw {name!r}; {hint}{known}")
        if classes.count(name) > 1:
            raise UserError(f"CLASSES = {','.join(classes)}: {name} occurs more than once")


# --------------------------------------------------------------------------------------- Oxford layout


def write_cats_and_dogs(root: Path, train_pictures: int, test_pictures: int, sides: tuple[int, int], seed: int) -> None:
    """Pictures, trimaps and lists in the Oxford layout. Every picture has random numbers of its own."""
    trimaps = root / "annotations" / "trimaps"
    for folder in (root / "images", trimaps):
        folder.mkdir(parents=True)
    breeds = list(CATS_AND_DOGS)
    header = ["#Image CLASS-ID SPECIES BREED ID", "#SPECIES: 1:Cat 2:Dog"]
    lists = {"list": header, "trainval": [], "test": []}
    # By breed, like the original lists: so every 10th line, which is for validation, meets all breeds.
    numbers = sorted(range(train_pictures + test_pictures), key=breed_of)
    for number in progress(numbers):
        index = breed_of(number)
        subject = CATS_AND_DOGS[breeds[index]]
        name = f"{breeds[index]}_{number // len(breeds) + 1}"
        image, mask = draw_picture(np.random.default_rng((seed, number)), subject, subject, sides)
        image.save(root / "images" / f"{name}.jpg", quality=92)
        as_trimap(mask).save(trimaps / f"{name}.png")
        line = f"{name} {index + 1} {subject.label} {index % 4 + 1}"  # the last is the breed within its species
        lists["list"].append(line)
        lists["trainval" if number < train_pictures else "test"].append(line)
    for name, lines in lists.items():
        (root / "annotations" / f"{name}.txt").write_text("\n".join(lines) + "\n")


def breed_of(number: int) -> int:
    """The breeds in turn, cats and dogs mixed: an index into CATS_AND_DOGS."""
    return number * 5 % len(CATS_AND_DOGS)


def as_trimap(mask: Image.Image) -> Image.Image:
    """Mask -> 1 pet, 2 background, 3 outline."""
    return mask.point(lambda value: {0: 2, VOID: 3}.get(value, 1))


# --------------------------------------------------------------------------------------- folder layout


def write_others(
    root: Path, classes: Sequence[str], train_pictures: int, test_pictures: int, sides: tuple[int, int], seed: int
) -> None:
    """Pictures and index masks of any of ANIMALS in the folder layout, with classes.txt."""
    palette = named(("background", *classes)).palette.tobytes()
    subjects = [(name, label) for label, name in enumerate(classes, 1)]
    first_val = train_pictures - (train_pictures + 9) // 10  # a tenth is for validation, as in the other layouts
    for split in ("train", "val", "test"):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
    for number in progress(range(train_pictures + test_pictures)):
        rng = np.random.default_rng((seed, number))
        first = number % len(subjects)  # the classes in turn: every split has all of them
        second = first if rng.random() < 0.4 else rng.integers(len(subjects))
        subject, companion = (
            Subject(name, PATTERNS[rng.integers(len(PATTERNS))], label)
            for name, label in (subjects[first], subjects[second])
        )
        image, mask = draw_picture(rng, subject, companion, sides)
        split = "train" if number < first_val else "val" if number < train_pictures else "test"
        name = f"{subject.animal}_{number // len(subjects) + 1}"
        image.save(root / split / "images" / f"{name}.jpg", quality=92)
        mask.putpalette(palette)
        mask.save(root / split / "masks" / f"{name}.png")
    write_classes(("background", *classes), root)


def progress(numbers: Sequence[int]) -> tqdm:
    """A progress bar over the pictures to draw."""
    return tqdm(numbers, desc="drawing", unit="img", leave=False, disable=None)
