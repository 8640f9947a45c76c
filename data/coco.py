"""Convert COCO annotations (JSON with polygons or run lengths) to the folder layout."""

import hashlib
import json
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from unicodedata import normalize
from urllib.parse import unquote

from utils.config import require_choice

import numpy as np
from pycocotools import mask as masks

from data.folder_layout import Fault, describe, displayed_size, holds, report, require_known, save_pair, write_data_set
from data.outlines import parts_of, to_rle, whole
from utils.classes import MOST, VOID
from utils.errors import UserError
from utils.inputs.layouts import is_picture

ROLES = {1: ("all",), 2: ("train", "test"), 3: ("train", "val", "test")}  # number of JSON files -> their splits


@dataclass(frozen=True)
class Picture:
    """A picture and its annotations."""

    file: Path
    name: str  # in the data set, without suffix
    size: tuple[int, int]  # height, width, as the JSON says
    objects: list[tuple[str, int, list, bool]]  # annotation's place, class id or VOID, outline (parts_of), is a crowd


def convert(target: Path, name: str, constants: dict) -> None:
    """Write the data set that prepare.py's constants describe to target, unless it is there. Raises UserError."""
    files, folders, categories = (constants[key] for key in ("COCO", "PICTURES", "CATEGORIES"))
    if len(files) not in ROLES:
        raise UserError(f"COCO names {len(files)} files: one; or train,test; or train,val,test")
    if len(folders) not in (1, len(files)):
        raise UserError(f"PICTURES names {len(folders)} folders: one, or as many as COCO has files ({len(files)})")
    require_choice("CROWDS", constants["CROWDS"], ("auto", "objects", "void"))
    contents = [Path(file).read_bytes() for file in files]
    folders = [Path(folder).resolve() for folder in folders]
    sums = [hashlib.sha256(content).hexdigest() for content in contents]
    about = {"COCO": [Path(file).name for file in files], "SHA256": sums, "PICTURES": list(map(str, folders))}
    others = ("CATEGORIES", "CROWDS", "SPLIT", "SEED") if len(files) == 1 else ("CATEGORIES", "CROWDS")
    record = describe(name, **about, **{key: constants[key] for key in others})
    if holds(target, record):
        return

    sets = [parse(Path(file), content) for file, content in zip(files, contents, strict=True)]
    names = class_names(sets, categories)
    crowds_void = constants["CROWDS"] == "void" or (constants["CROWDS"] == "auto" and crowds_are_groups(sets))
    faults, tasks = [], {}
    for role, coco, folder in zip(ROLES[len(sets)], sets, folders * (len(sets) // len(folders)), strict=True):
        tasks[role], left_out = collect(coco, folder, names, crowds_void)
        faults += left_out
        if categories:
            tasks[role] = [task for task in tasks[role] if any(0 < label < VOID for _, label, *_ in task.objects)]
    number = sum(crowd for own in tasks.values() for task in own for *_, crowd in task.objects)
    if number:
        kind, other = ("void", "objects") if crowds_void else ("objects", "void")
        print(f"{number:,} crowd{'s' * (number > 1)} taken as {kind} (with --CROWDS={other} as {other})")
    if "all" in tasks:
        tasks = divide(tasks["all"], constants["SPLIT"], constants["SEED"])
    write_data_set(target, record, names, tasks, draw, faults)


# -------------------------------------------------------------------------------------------- the JSON


def parse(file: Path, content: bytes) -> dict:
    """A COCO JSON, checked, with its path as "file" and categories sorted by id. Raises UserError.

    Ids, widths and heights are ints; image_id and category_id are None where they are not whole numbers.
    """
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is no JSON, or is damaged ({error}): export it again") from error
    for key in ("images", "annotations", "categories"):
        entries = data.get(key) if isinstance(data, dict) else None
        if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
            raise UserError(f'{file} has no list "{key}" with entries: export it as COCO, with instance segmentation')
    for image in data["images"]:
        known = {key: whole(image.get(key)) for key in ("id", "width", "height")}
        known["file_name"] = relative_path(str(image.get("file_name") or ""))
        if known["id"] is None or not known["file_name"] or min(known["width"] or 0, known["height"] or 0) < 1:
            raise UserError(
                f"{file}: {json.dumps(image):.80} in images needs a number as id, a file_name, a width and a height"
            )
        image.update(known)
    for category in data["categories"]:
        known = {"id": whole(category.get("id")), "name": tidy(str(category.get("name") or ""))}
        if known["id"] is None or not known["name"]:
            raise UserError(f"{file}: {json.dumps(category):.80} in categories needs a number as id and a name")
        category.update(known)
    for annotation in data["annotations"]:
        annotation.update({key: whole(annotation.get(key)) for key in ("image_id", "category_id")})
    for key, field in (("images", "id"), ("images", "file_name"), ("categories", "id"), ("categories", "name")):
        value, times = Counter(entry[field] for entry in data[key]).most_common(1)[0]
        if times > 1:
            raise UserError(f"{file}: {times} {key} have the {field} {value}: each needs its own")
    data["categories"].sort(key=lambda category: category["id"])
    return {**data, "file": file}


def tidy(name: str) -> str:
    """A class name in NFC with single spaces; "background" in lower case, which some tools export as a category."""
    name = " ".join(normalize("NFC", name).split())
    return "background" if name.lower() == "background" else name


def relative_path(name: str) -> str:
    """A file_name with forward slashes, without drive, "." and ".."; of a URL without query and fragment."""
    name = re.sub(r"^(\w+://[^?#]*).*", r"\1", name, flags=re.DOTALL)
    parts = name.replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", ".", "..") and not part.endswith(":"))


def class_names(sets: list[dict], chosen: tuple[str, ...]) -> list[str]:
    """Class names in the order of their ids in masks: background, then the chosen categories, by default all.

    Raises UserError.
    """
    file, known = sets[0]["file"], [category["name"] for category in sets[0]["categories"]]
    for other in sets[1:]:
        names = sorted(category["name"] for category in other["categories"])
        if names != sorted(known):
            text = f"{', '.join(names)}; not {', '.join(sorted(known))}"
            raise UserError(f"{other['file']} has other categories than {file}: {text}")
    kept = [name for name in map(tidy, chosen or known) if name != "background"]
    require_known("CATEGORIES", kept, known, file)
    if len(kept) >= MOST:
        raise UserError(f"{file} has {len(kept)} categories, a mask holds {MOST - 1}: choose with --CATEGORIES=...")
    return ["background", *kept]


def crowds_are_groups(sets: list[dict]) -> bool:
    """Whether crowds are groups of objects, as in COCO, rather than single objects painted with a brush.

    CVAT (Datumaro) marks every painted mask as a crowd, with "attributes". In COCO crowds are rare.
    """
    entries = [entry for coco in sets for entry in coco["annotations"]]
    crowds = [entry for entry in entries if is_crowd(entry)]
    return 4 * len(crowds) <= len(entries) and not any("attributes" in entry for entry in crowds)


def is_crowd(annotation: dict) -> bool:
    return str(annotation.get("iscrowd")).strip().lower() in ("1", "1.0", "true")


# ---------------------------------------------------------------------- which pictures, which annotations


def collect(coco: dict, folder: Path, names: list[str], crowds_void: bool) -> tuple[list[Picture], list[Fault]]:
    """The pictures of a JSON, sorted by name, and what is left out. Raises UserError if nothing is left.

    A mask that lacks an object would be wrong: a damaged annotation takes its whole picture with it. One that has no
    pixels is left out alone.
    """
    ids = {name: index for index, name in enumerate(names)}
    classes = {category["id"]: ids.get(category["name"]) for category in coco["categories"]}  # None: not kept
    objects = {image["id"]: [] for image in coco["images"]}
    damaged, faults, polygons = {}, [], []  # damaged: image id -> why its picture is left out
    for annotation in coco["annotations"]:
        where = f"annotation {annotation.get('id', 'without id')} in {coco['file'].name}"
        image, category = annotation["image_id"], annotation["category_id"]
        if image not in objects:
            faults.append(Fault("annotation", "of no picture in the JSON", where))
            continue
        if classes.get(category, VOID) is None:
            continue
        try:
            if category not in classes:
                raise ValueError("an annotation of no known category")
            outline = parts_of(annotation)
        except ValueError as error:
            damaged.setdefault(image, Fault("picture", f"with {error}", where))
            continue
        parts = [part for part in outline if isinstance(part, dict) or len(part) >= 6]
        faults += [Fault("polygon", "of fewer than three points", where)] * (len(outline) - len(parts))
        if parts:
            crowd = is_crowd(annotation)
            label = VOID if crowd and crowds_void else classes[category]
            objects[image].append((where, label, parts, crowd))
        polygons += [part for part in parts if not isinstance(part, dict)]
    if polygons and all(polygon.min() >= 0 and polygon.max() <= 1 for polygon in polygons):
        raise UserError(f"{coco['file']} gives all outlines as fractions of the picture's size: export them in pixels")

    pictures = []
    images = sorted(coco["images"], key=lambda image: image["file_name"])
    files = [find_picture(folder, image["file_name"]) for image in images]
    uses = Counter(files)
    stems = distinct_names([image["file_name"] for image in images])
    for image, file, name in zip(images, files, stems, strict=True):
        place = folder / image["file_name"]
        if file is None:
            faults.append(Fault("picture", "missing", str(place)))
        elif uses[file] > 1 and file != place:
            faults.append(Fault("picture", "missing; another folder has a file of the same name", str(place)))
        elif file.name.startswith(".") or not is_picture(file):
            faults.append(Fault("picture", "hidden, or with a suffix of no known picture format", str(file)))
        elif image["id"] in damaged:
            faults.append(damaged[image["id"]])
        else:
            pictures.append(Picture(file, name, (image["height"], image["width"]), objects[image["id"]]))
    if not any(picture.objects for picture in pictures):
        raise UserError(
            "\n".join([f"no picture of {coco['file']} in {folder} has a usable annotation", *report(faults)])
        )
    return pictures, faults


def find_picture(folder: Path, name: str) -> Path | None:
    """The file of a file_name, also percent-decoded or without its first folders; None if there is none."""
    for spelling in dict.fromkeys((name, relative_path(unquote(name)))):
        parts = PurePosixPath(spelling).parts
        for start in range(len(parts)):
            file = folder.joinpath(*parts[start:])
            if os.path.isfile(file):  # Path.is_file() raises for a name that is too long
                return file
    return None


def distinct_names(files: list[str]) -> list[str]:
    """The files' names without suffix; equal ones get their folders in front, or _2 at the end."""
    paths = [PurePosixPath(file).with_suffix("") for file in files]
    shared = Counter(path.name.lower() for path in paths)  # lower: some file systems ignore case
    names = {}
    for path in paths:
        name = path.name if shared[path.name.lower()] == 1 else "_".join(path.parts)
        while name.lower() in names:
            name += "_2"
        names[name.lower()] = name
    return list(names.values())


def divide(pictures: list[Picture], shares: tuple[float, ...], seed: int) -> dict[str, list[Picture]]:
    """Random splits; those with a share of 0 are left out. Raises UserError if another one gets no picture."""
    text = f"SPLIT = {','.join(map(str, shares))}"
    if len(shares) != 3 or min(shares) < 0 or shares[0] == 0 or not abs(sum(shares) - 1) < 1e-6:
        raise UserError(f"{text}: must be the shares of train, val and test, which add up to 1")
    order = np.random.default_rng(seed).permutation(len(pictures))
    borders = np.rint(np.cumsum(shares) * len(pictures)).astype(int)
    splits = {}
    for role, share, part in zip(ROLES[3], shares, np.split(order, borders[:2]), strict=True):
        if share and not len(part):
            raise UserError(f"{len(pictures)} pictures are too few for {text}: {role} gets none")
        if share:
            splits[role] = [pictures[index] for index in sorted(part)]
    return splits


# --------------------------------------------------------------------------------------------- drawing


def draw(folder: Path, picture: Picture) -> tuple[bool, list[Fault]]:
    """A Job of write_data_set: write a picture and its mask."""
    try:
        height, width = displayed_size(picture.file)
    except UserError as error:
        return False, [Fault("picture", "unreadable", str(error))]
    if (height, width) != picture.size:
        where = "{} is {} x {}, not {} x {}".format(picture.file, width, height, *reversed(picture.size))
        return False, [Fault("picture", "of another size than in the JSON (turned by EXIF, or resized?)", where)]
    objects, faults = [], []
    for where, label, parts, _ in picture.objects:
        try:
            rle = to_rle(parts, height, width)
        except ValueError as error:
            return False, [Fault("picture", f"with {error}", where)]
        if masks.area(rle):
            objects.append((label, rle))
        else:
            faults.append(Fault("annotation", "without a pixel in the picture", where))
    mask = paint(objects, height, width)
    save_pair(picture.file, mask, folder, picture.name)
    return True, faults


def paint(objects: list[tuple[int, dict]], height: int, width: int) -> np.ndarray:
    """Mask uint8 (H, W) of objects (class id, RLE of pycocotools); smaller objects cover larger ones."""
    mask = np.zeros((height, width), np.uint8)
    for label, rle in sorted(objects, key=lambda entry: -int(masks.area(entry[1]))):
        mask[masks.decode(rle) > 0] = label
    return mask
