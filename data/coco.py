"""COCO annotations (JSON with polygons or run lengths) into the folder layout."""

import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path, PurePosixPath, PureWindowsPath

from utils.config import require_between

import numpy as np
from scipy.ndimage import maximum_filter

from data.folder_layout import (
    Fault,
    describe,
    displayed_size,
    holds,
    report,
    save_pair,
    write_data_set,
)
from data.outlines import area, filled, object_edges
from utils.classes import MOST, VOID
from utils.errors import UserError
from utils.inputs.layouts import PICTURE_SUFFIXES

LARGEST = 1 << 30  # bytes of a JSON, which takes several times as much memory; COCO's own has 450 MB
ROLES = {1: ("all",), 2: ("train", "test"), 3: ("train", "val", "test")}  # of the JSON files


@dataclass(frozen=True)
class Picture:
    """A picture and what is annotated in it."""

    file: Path
    name: str  # in the data set, without suffix
    size: tuple[int, int]  # height, width
    objects: list[tuple[str, int, list | dict]]  # where it is from, class id or VOID, polygons or run lengths


@dataclass(frozen=True)
class CocoSet:
    """A JSON whose structure has been checked."""

    file: Path
    categories: dict[int, str]  # id -> name, by id
    images: list[dict]  # with id, file_name, width, height
    annotations: list[dict]


def convert(
    target: Path,
    name: str,
    files: tuple[str, ...],
    folders: tuple[str, ...],
    categories: tuple[str, ...],
    shares: tuple[float, ...],
    seed: int,
    void: int,
) -> None:
    """Write the data set of prepare.py's constants to target, unless it is there already. Raises UserError."""
    if len(files) not in ROLES:
        raise UserError(f"COCO names {len(files)} files: one; or train,test; or train,val,test")
    if len(folders) not in (1, len(files)):
        raise UserError(f"PICTURES names {len(folders)} folders: one, or as many as COCO has files ({len(files)})")
    require_between({"VOID": void}, 0, 100, "VOID")
    check_shares(shares, seed)
    contents = [read(Path(file)) for file in files]
    folders = [Path(folder).resolve() for folder in folders]
    record = describe(
        name,
        COCO=[Path(file).name for file in files],
        SHA256=[hashlib.sha256(content).hexdigest() for content in contents],
        PICTURES=[str(folder) for folder in folders],
        CATEGORIES=categories,
        VOID=void,
        **({"SPLIT": shares, "SEED": seed} if len(files) == 1 else {}),
    )
    if holds(target, record):
        return

    sets = [parse(Path(file), content) for file, content in zip(files, contents, strict=True)]
    names = class_names(sets, categories)
    faults = []
    tasks = {}
    for role, coco, folder in zip(ROLES[len(sets)], sets, folders * (len(sets) // len(folders)), strict=True):
        tasks[role], left_out = collect(coco, folder, names)
        faults += left_out
        if categories:
            tasks[role] = [task for task in tasks[role] if any(0 < label < VOID for _, label, _ in task.objects)]
    if "all" in tasks:
        tasks = divide(tasks["all"], shares, seed)
    job = partial(draw, void=void, must_show=bool(categories))
    write_data_set(target, record, names, tasks, job, faults)


# -------------------------------------------------------------------------------------------- the JSON


def read(file: Path) -> bytes:
    """The content of a JSON file. Raises UserError if it cannot be read or is too large."""
    try:
        size = file.stat().st_size
        if size > LARGEST:
            raise UserError(f"{file} has {size / 2**30:.1f} GB: divide it into files of 1 GB at most")
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"COCO = {file}: cannot be read ({error})") from error


def parse(file: Path, content: bytes) -> CocoSet:
    """Check the structure of a COCO JSON. Raises UserError."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is no JSON, or a damaged one ({error}): export it again") from error
    for key in ("images", "annotations", "categories"):
        entries = data.get(key) if isinstance(data, dict) else None
        if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
            raise UserError(f'{file} has no list "{key}" with entries: export it as COCO, with instance segmentation')
    for image in data["images"]:
        if not (
            isinstance(image.get("id"), (int, str))
            and isinstance(image.get("file_name"), str)
            and all(type(image.get(side)) is int and image[side] > 0 for side in ("width", "height"))
        ):
            raise UserError(f"{file}: {_shorten(image)} in images needs an id, a file_name, a width and a height")
        image["file_name"] = relative_path(image["file_name"], file)
    for category in data["categories"]:
        if not (type(category.get("id")) is int and isinstance(category.get("name"), str) and category["name"].split()):
            raise UserError(f"{file}: {_shorten(category)} in categories needs a whole number as id, and a name")
        category["name"] = " ".join(category["name"].split())
    for key, field in (("images", "id"), ("images", "file_name"), ("categories", "id"), ("categories", "name")):
        value, times = Counter(entry[field] for entry in data[key]).most_common(1)[0]
        if times > 1:
            raise UserError(f"{file}: {times} {key} have the {field} {value}: make them one, or give one another")
    categories = {category["id"]: category["name"] for category in data["categories"]}
    return CocoSet(file, dict(sorted(categories.items())), data["images"], data["annotations"])


def _shorten(entry: dict) -> str:
    text = json.dumps(entry)
    return text if len(text) < 80 else f"{text[:80]}..."


def relative_path(name: str, file: Path) -> str:
    """A file_name of the JSON with slashes. Raises UserError if it leads out of the pictures' folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or PureWindowsPath(name).drive or ".." in path.parts or not path.name:
        raise UserError(
            f"{file}: the file_name {name!r} leads out of the folder PICTURES: write paths that start in that folder"
        )
    return str(path)


def class_names(sets: list[CocoSet], chosen: tuple[str, ...]) -> list[str]:
    """The classes by id: background, then the chosen categories, or all by their ids. Raises UserError."""
    known = list(sets[0].categories.values())
    for other in sets[1:]:
        if set(other.categories.values()) != set(known):
            raise UserError(
                f"{other.file} has other categories than {sets[0].file}: {', '.join(sorted(other.categories.values()))}"
                f"; not {', '.join(sorted(known))}"
            )
    kept = [name for name in chosen or known if not is_background(name)]
    unknown = [name for name in kept if name not in known]
    if unknown or len(set(kept)) < len(kept):
        raise UserError(
            f"CATEGORIES = {','.join(chosen)}: must name different categories of {sets[0].file}, "
            f"which has {', '.join(known)}"
        )
    if len(kept) >= MOST:
        raise UserError(
            f"{sets[0].file} has {len(kept)} categories, a mask holds {MOST - 1}: choose with --CATEGORIES=..."
        )
    return ["background", *kept]


def is_background(name: str) -> bool:
    """Some tools export the background as a category."""
    return name.lower() == "background"


# ---------------------------------------------------------------------------------- what has to be drawn


def collect(coco: CocoSet, folder: Path, names: list[str]) -> tuple[list[Picture], list[Fault]]:
    """The pictures of a JSON by name, and what is left out. Raises UserError if nothing is left.

    A mask without one of its objects would be wrong: an annotation that cannot be drawn costs the whole picture,
    unless it has no pixels anyway.
    """
    ids = {name: index for index, name in enumerate(names)}
    classes = {key: 0 if is_background(name) else ids.get(name) for key, name in coco.categories.items()}
    objects = {image["id"]: [] for image in coco.images}
    damaged, faults = {}, []  # damaged: image id -> why it is left out
    for annotation in coco.annotations:
        where = f"annotation {annotation.get('id', 'without id')} in {coco.file.name}"
        image, category, outline = (annotation.get(key) for key in ("image_id", "category_id", "segmentation"))
        if not isinstance(image, (int, str)) or image not in objects:
            faults.append(Fault("annotation", "of no picture in the JSON", where))
            continue
        if type(category) is not int or category not in classes:
            damaged.setdefault(image, Fault("picture", "with an annotation of no known category", where))
            continue
        if classes[category] is None:
            continue
        if isinstance(outline, list):
            polygons = [polygon for polygon in outline if not (isinstance(polygon, list) and len(polygon) < 6)]
            faults += [Fault("polygon", "of fewer than three points", where)] * (len(outline) - len(polygons))
            if outline and not polygons:
                continue
            outline = polygons
        if not outline or not isinstance(outline, (list, dict)):
            damaged.setdefault(image, Fault("picture", "with an annotation that has no outline", where))
            continue
        objects[image].append((where, VOID if annotation.get("iscrowd") == 1 else classes[category], outline))

    pictures = []
    images = sorted(coco.images, key=lambda image: image["file_name"])
    for image, name in zip(images, distinct_names([image["file_name"] for image in images]), strict=True):
        file = folder / image["file_name"]
        if not os.path.isfile(file):  # Path.is_file() raises for a name that is too long
            faults.append(Fault("picture", "missing", str(file)))
        elif file.suffix.lower() not in PICTURE_SUFFIXES:
            faults.append(Fault("picture", f"whose name ends in {file.suffix or 'no suffix'}", str(file)))
        elif image["id"] in damaged:
            faults.append(damaged[image["id"]])
        else:
            pictures.append(Picture(file, name, (image["height"], image["width"]), objects[image["id"]]))
    if not any(picture.objects for picture in pictures):
        raise UserError(
            "\n".join([f"no picture of {coco.file} in {folder} has an annotation that can be used", *report(faults)])
        )
    return pictures, faults


def distinct_names(files: list[str]) -> list[str]:
    """The files' names without suffix; those that would be the same have their folders in front, or get a number."""
    paths = [PurePosixPath(file) for file in files]
    shared = Counter(path.stem.lower() for path in paths)  # lower: some disks do not tell A from a
    names = {}
    for path in paths:
        name = path.stem if shared[path.stem.lower()] == 1 else "_".join(path.with_suffix("").parts)
        others = (f"{name}_{number}" for number in count(2))
        while name.lower() in names:
            name = next(others)
        names[name.lower()] = name
    return list(names.values())


def check_shares(shares: tuple[float, ...], seed: int) -> None:
    """Raise UserError unless SPLIT and SEED make sense."""
    if len(shares) != 3 or min(shares) < 0 or shares[0] == 0 or not abs(sum(shares) - 1) < 1e-6:
        raise UserError(
            f"SPLIT = {','.join(map(str, shares))}: must be the shares of train, val and test, with 1 as their sum"
        )
    if seed < 0:
        raise UserError(f"SEED = {seed}: must not be negative")


def divide(pictures: list[Picture], shares: tuple[float, ...], seed: int) -> dict[str, list[Picture]]:
    """The splits that have a share, drawn at random. Raises UserError if one of them gets no picture."""
    order = np.random.default_rng(seed).permutation(len(pictures))
    borders = np.rint(np.cumsum(shares) * len(pictures)).astype(int)
    splits = {}
    for role, share, part in zip(ROLES[3], shares, np.split(order, borders[:2]), strict=True):
        if share and not len(part):
            raise UserError(
                f"{len(pictures)} pictures are too few for SPLIT = {','.join(map(str, shares))}: {role} gets none"
            )
        if share:
            splits[role] = [pictures[index] for index in sorted(part)]
    return splits


# --------------------------------------------------------------------------------------------- drawing


def draw(folder: Path, picture: Picture, void: int, must_show: bool) -> tuple[bool, list[Fault]]:
    """Write one picture and its mask into the folder of a split: whether it did, and what it left out.

    must_show: leave the picture out if none of its pixels shows a class.
    """
    try:
        height, width = displayed_size(picture.file)
    except UserError as error:
        return False, [Fault("picture", "unreadable", str(error))]
    if (height, width) != picture.size:
        where = "{} is {} x {}, not {} x {}".format(picture.file, width, height, *reversed(picture.size))
        return False, [Fault("picture", "of another size than in the JSON (turned by EXIF, or resized?)", where)]
    objects, faults = [], []
    for where, label, outline in picture.objects:
        try:
            edges = object_edges(outline, height, width)
        except ValueError as error:
            return False, [Fault("picture", f"with {error}", where)]
        if area(edges):
            objects.append((label, edges))
        else:
            faults.append(Fault("annotation", "without a pixel in the picture", where))
    mask = paint(objects, height, width, void)
    if must_show and not ((mask > 0) & (mask < VOID)).any():
        return False, faults
    save_pair(picture.file, mask, folder, picture.name)
    return True, faults


def paint(objects: list[tuple[int, np.ndarray]], height: int, width: int, void: int) -> np.ndarray:
    """Objects (class id, edges) as a mask: uint8 (H, W). Smaller objects lie on larger ones.

    void: pixels up to this far from an object, also diagonally, become VOID unless a smaller object has them.
    """
    columns = np.zeros((width, height), np.uint8)
    for label, edges in sorted(objects, key=lambda entry: -area(entry[1])):
        left = max(edges[0] // height - void, 0)
        right = min((edges[-1] - 1) // height + 1 + void, width)
        inside = filled(edges, left * height, right * height).reshape(-1, height)
        around = columns[left:right]
        if void:
            around[maximum_filter(inside, 2 * void + 1, mode="constant")] = VOID
        around[inside] = label
    return np.ascontiguousarray(columns.T)
