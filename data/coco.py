"""COCO annotations (JSON with polygons or run lengths) into the folder layout."""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import count
from pathlib import Path, PurePosixPath
from unicodedata import normalize
from urllib.parse import unquote

from utils.config import require_between, require_choice

import numpy as np
from scipy.ndimage import maximum_filter

from data.folder_layout import (
    Fault,
    describe,
    displayed_size,
    holds,
    report,
    require_known,
    save_pair,
    write_data_set,
)
from data.outlines import area, filled, is_fraction, object_edges, parts_of, whole
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
    objects: list[tuple[str, int, list]]  # where it is from, class id or VOID, polygons and run lengths
    crowds: int = 0  # how many of the objects are marked as crowds


@dataclass(frozen=True)
class CocoSet:
    """A JSON whose structure has been checked."""

    file: Path
    categories: dict[int | str, str]  # id -> name, by id
    images: list[dict]  # with id, file_name, width, height
    annotations: list[dict]  # with image_id and category_id as the others have them, or None


def convert(
    target: Path,
    name: str,
    files: tuple[str, ...],
    folders: tuple[str, ...],
    categories: tuple[str, ...],
    shares: tuple[float, ...],
    seed: int,
    void: int,
    crowds: str,
) -> None:
    """Write the data set of prepare.py's constants to target, unless it is there already. Raises UserError."""
    if len(files) not in ROLES:
        raise UserError(f"COCO names {len(files)} files: one; or train,test; or train,val,test")
    if len(folders) not in (1, len(files)):
        raise UserError(f"PICTURES names {len(folders)} folders: one, or as many as COCO has files ({len(files)})")
    require_between({"VOID": void}, 0, 100, "VOID")
    require_choice("CROWDS", crowds, ("auto", "objects", "void"))
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
        CROWDS=crowds,
        **({"SPLIT": shares, "SEED": seed} if len(files) == 1 else {}),
    )
    if holds(target, record):
        return

    sets = [parse(Path(file), content) for file, content in zip(files, contents, strict=True)]
    names = class_names(sets, categories)
    crowds_void = crowds == "void" or (crowds == "auto" and crowds_are_groups(sets))
    faults = []
    tasks = {}
    for role, coco, folder in zip(ROLES[len(sets)], sets, folders * (len(sets) // len(folders)), strict=True):
        tasks[role], left_out = collect(coco, folder, names, crowds_void)
        faults += left_out
        if categories:
            tasks[role] = [task for task in tasks[role] if any(0 < label < VOID for _, label, _ in task.objects)]
    number = sum(task.crowds for own in tasks.values() for task in own)
    became = "became void (--CROWDS=objects takes them as objects)" if crowds_void else "taken as objects"
    became += "" if crowds_void else " (--CROWDS=void makes them void)"
    notes = [f"{number:,} crowd{'s' * (number > 1)} {became}"] if number else []
    if "all" in tasks:
        tasks = divide(tasks["all"], shares, seed)
    job = partial(draw, void=void, must_show=bool(categories))
    write_data_set(target, record, names, tasks, job, faults, notes)


# -------------------------------------------------------------------------------------------- the JSON


def read(file: Path) -> bytes:
    """The content of a JSON file. Raises UserError if it cannot be read or is too large."""
    try:
        size = file.stat().st_size
        if size > LARGEST:
            raise UserError(f"{file} has {size:,} bytes: divide it into files of {LARGEST:,} at most")
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
        name = relative_path(image["file_name"]) if isinstance(image.get("file_name"), str) else ""
        known = {"id": id_of(image.get("id")), **{side: whole(image.get(side)) for side in ("width", "height")}}
        if not name or None in known.values() or known["width"] < 1 or known["height"] < 1:
            raise UserError(f"{file}: {_shorten(image)} in images needs an id, a file_name, a width and a height")
        image.update(known, file_name=name)
    for category in data["categories"]:
        name = category.get("name")
        known = {"id": id_of(category.get("id")), "name": tidy(str(name)) if isinstance(name, (str, int)) else ""}
        if known["id"] is None or not known["name"]:
            raise UserError(f"{file}: {_shorten(category)} in categories needs an id and a name")
        category.update(known)
    for annotation in data["annotations"]:
        annotation.update({key: id_of(annotation.get(key)) for key in ("image_id", "category_id")})
    for key, field in (("images", "id"), ("images", "file_name"), ("categories", "id"), ("categories", "name")):
        value, times = Counter(entry[field] for entry in data[key]).most_common(1)[0]
        if times > 1:
            raise UserError(f"{file}: {times} {key} have the {field} {value}: make them one, or give one another")
    categories = {category["id"]: category["name"] for category in data["categories"]}
    order = sorted(categories, key=lambda key: (isinstance(key, str), key))
    return CocoSet(file, {key: categories[key] for key in order}, data["images"], data["annotations"])


def _shorten(entry: dict) -> str:
    text = json.dumps(entry)
    return text if len(text) < 80 else f"{text[:80]}..."


def id_of(value: object) -> int | str | None:
    """An id as it is compared: "7" and 7.0 are 7, other text stays text. None for what is no id."""
    number = whole(value)
    if not isinstance(value, str):
        return number
    return number if str(number) == value.strip() else value


def tidy(text: str) -> str:
    """A class's name without spaces too many; an accented letter is one character (NFC)."""
    return " ".join(normalize("NFC", text).split())


def relative_path(name: str) -> str:
    """A file_name with slashes, in NFC, from where it may start in PICTURES: behind a host, a drive, "/" and "..".

    Empty if nothing is left.
    """
    name = re.sub(r"^\w+://[^/]*([^?#]*).*", r"\1", name, flags=re.DOTALL)
    parts = PurePosixPath(normalize("NFC", name).replace("\\", "/").lstrip("/")).parts
    outside = [number for number, part in enumerate(parts, 1) if part == ".." or part.endswith(":")]
    return "/".join(parts[outside[-1] if outside else 0 :])


def class_names(sets: list[CocoSet], chosen: tuple[str, ...]) -> list[str]:
    """The classes by id: background, then the chosen categories, or all by their ids. Raises UserError."""
    known = list(sets[0].categories.values())
    for other in sets[1:]:
        if set(other.categories.values()) != set(known):
            raise UserError(
                f"{other.file} has other categories than {sets[0].file}: {', '.join(sorted(other.categories.values()))}"
                f"; not {', '.join(sorted(known))}"
            )
    kept = [name for name in map(tidy, chosen or known) if not is_background(name)]
    require_known(kept, known, sets[0].file)
    if len(kept) >= MOST:
        raise UserError(
            f"{sets[0].file} has {len(kept)} categories, a mask holds {MOST - 1}: choose with --CATEGORIES=..."
        )
    return ["background", *kept]


def is_background(name: str) -> bool:
    """Some tools export the background as a category."""
    return name.lower() == "background"


def is_crowd(annotation: dict) -> bool:
    value = annotation.get("iscrowd")
    return value is True or whole(value) == 1 or (isinstance(value, str) and value.strip().lower() == "true")


def is_rle(annotation: dict) -> bool:
    outline = annotation.get("segmentation")
    return isinstance(outline[0] if isinstance(outline, list) and outline else outline, dict)


def crowds_are_groups(sets: list[CocoSet]) -> bool:
    """Whether crowds are groups of objects, as in COCO itself, and not single objects that somebody painted.

    CVAT (Datumaro) marks every mask as a crowd, and no polygon; so does COCO. But COCO has no "attributes", and its
    crowds are what is left of a group: few, one of a class in a picture, beside outlines of that class.
    """
    entries = [(number, entry) for number, coco in enumerate(sets) for entry in coco.annotations]
    crowds = [(number, entry) for number, entry in entries if is_crowd(entry)]
    if any(is_crowd(entry) != is_rle(entry) for _, entry in entries if is_crowd(entry) or is_rle(entry)):
        return len(crowds) < len(entries)  # this tool tells crowds from masks
    places = Counter((number, entry["image_id"], entry["category_id"]) for number, entry in crowds)
    outlined = {(number, entry["image_id"], entry["category_id"]) for number, entry in entries if not is_crowd(entry)}
    return (
        4 * len(crowds) <= len(entries)
        and max(places.values(), default=1) == 1
        and 2 * sum(place in outlined for place in places) > len(places)
        and not any("attributes" in entry for _, entry in crowds)
    )


# ---------------------------------------------------------------------------------- what has to be drawn


def collect(coco: CocoSet, folder: Path, names: list[str], crowds_void: bool) -> tuple[list[Picture], list[Fault]]:
    """The pictures of a JSON by name, and what is left out. Raises UserError if nothing is left.

    A mask without one of its objects would be wrong: an annotation that cannot be drawn costs the whole picture,
    unless it has no pixels anyway.
    """
    ids = {name: index for index, name in enumerate(names)}
    classes = {key: 0 if is_background(name) else ids.get(name) for key, name in coco.categories.items()}
    objects = {image["id"]: [] for image in coco.images}
    damaged, faults, crowds = {}, [], Counter()  # damaged: image id -> why it is left out
    for annotation in coco.annotations:
        where = f"annotation {annotation.get('id', 'without id')} in {coco.file.name}"
        image, category = annotation["image_id"], annotation["category_id"]
        if image not in objects:
            faults.append(Fault("annotation", "of no picture in the JSON", where))
            continue
        if category not in classes:
            damaged.setdefault(image, Fault("picture", "with an annotation of no known category", where))
            continue
        if classes[category] is None:
            continue
        try:
            outline = parts_of(annotation.get("segmentation"))
        except ValueError as error:
            damaged.setdefault(image, Fault("picture", f"with {error}", where))
            continue
        box = annotation.get("bbox")
        if not any(outline) or outline == [box]:
            without = "a box, but no outline" if box else "no outline"
            damaged.setdefault(image, Fault("picture", f"with an annotation that has {without}", where))
            continue
        parts = [part for part in outline if not (isinstance(part, list) and len(part) < 6)]
        faults += [Fault("polygon", "of fewer than three points", where)] * (len(outline) - len(parts))
        if parts:
            crowd = is_crowd(annotation)
            crowds[image] += crowd
            objects[image].append((where, VOID if crowd and crowds_void else classes[category], parts))
    polygons = [part for own in objects.values() for *_, parts in own for part in parts if isinstance(part, list)]
    if polygons and all(map(is_fraction, polygons)):
        raise UserError(f"{coco.file} gives all outlines as shares of the picture, 0 .. 1: export them in pixels")

    pictures = []
    images = sorted(coco.images, key=lambda image: image["file_name"])
    entries = cache(list_names)
    files = [find_picture(folder, image["file_name"], entries) for image in images]
    uses = Counter(files)
    stems = distinct_names([image["file_name"] for image in images])
    for image, file, name in zip(images, files, stems, strict=True):
        place = folder / image["file_name"]
        if file is None:
            faults.append(Fault("picture", "missing", str(place)))
        elif uses[file] > 1 and file != place:
            faults.append(Fault("picture", "missing, and another one has its name without folders", str(place)))
        elif file.name.startswith("."):
            faults.append(Fault("picture", "hidden by the dot that its name begins with", str(file)))
        elif file.suffix.lower() not in PICTURE_SUFFIXES:
            faults.append(Fault("picture", "with a suffix of no known picture format", str(file)))
        elif image["id"] in damaged:
            faults.append(damaged[image["id"]])
        else:
            size = image["height"], image["width"]
            pictures.append(Picture(file, name, size, objects[image["id"]], crowds[image["id"]]))
    if not any(picture.objects for picture in pictures):
        raise UserError(
            "\n".join([f"no picture of {coco.file} in {folder} has an annotation that can be used", *report(faults)])
        )
    return pictures, faults


def find_picture(folder: Path, name: str, entries: Callable[[Path], dict[str, str]]) -> Path | None:
    """The file of a file_name, or None: as it stands or percent-decoded, with all its folders or only the last ones.

    entries: list_names, cached. It finds names that differ in capitals or in how they spell accents (NFC, NFD).
    """
    for spelling in dict.fromkeys((name, relative_path(unquote(name)))):
        parts = PurePosixPath(spelling).parts
        for start in range(len(parts)):
            file = folder.joinpath(*parts[start:])
            if not os.path.isfile(file):  # Path.is_file() raises for a name that is too long
                file = folder
                for part in parts[start:]:
                    file /= entries(file).get(part.casefold(), part)
            if os.path.isfile(file):
                return file
    return None


def list_names(folder: Path) -> dict[str, str]:
    """What lies in a folder: its name in NFC without capitals -> its name on disk, empty where two have the same."""
    names = {}
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        key = normalize("NFC", name).casefold()
        names[key] = "" if key in names else name
    return names


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
