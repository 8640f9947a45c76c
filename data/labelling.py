"""Labels that a person makes: a folder of pictures, their masks in the folder layout, and the same as COCO JSON.

OUT/{train,val}/images/NAME.jpg   the pictures, hard-linked or copied; the first and then every 10th saved one is in val
                                  (pictures that are in OUT/test stay there)
OUT/{train,val}/masks/NAME.png    class ids, 255 is void
OUT/{train,val}/old_masks/        masks as they were before they were changed: NAME_1.png, NAME_2.png, ...
OUT/classes.txt, OUT/label.json   the classes; the picture where label.py goes on, and the skipped ones
"""

import filecmp
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from unicodedata import normalize

import numpy as np
from scipy import ndimage

from data.folder_layout import write_classes
from utils.classes import VOID, Classes, classes_file, parse_classes, read_classes
from utils.errors import UserError
from utils.figures.overlays import save_mask
from utils.files import read_text, replacing, write_text
from utils.inputs.layouts import SPLITS, contents, list_files, list_pictures, meaning_of_white
from utils.inputs.pictures import Sample, open_picture, read_image, read_mask

VAL_EVERY = 10  # the first and then every 10th saved picture is for validation
MADE_BY = "label.py"  # in the COCO JSON: other files are not overwritten
Window = tuple[slice, slice]  # rows, columns


@dataclass(eq=False)
class Canvas:
    """A picture and its labels, which add() and undo() change."""

    file: Path
    image: np.ndarray  # uint8 (H, W, 3)
    ids: np.ndarray  # uint8 (H, W): class ids, VOID
    history: list[tuple[Window, np.ndarray]] = field(default_factory=list)  # the ids that add() replaced
    new: bool = True  # nothing was saved of the picture when it was opened
    unsaved: bool = False
    found: bytes = b""  # the mask file as it was when the picture was opened
    written: bytes = b""  # and as this canvas saved it

    @property
    def name(self) -> str:
        return self.file.stem

    def add(self, mask: np.ndarray, ids: int | np.ndarray) -> None:
        """Set the pixels in mask, bool (H, W), to one id, or to their ids in uint8 (H, W)."""
        places = ndimage.find_objects(mask.astype(np.uint8))
        if not places:
            return
        window, self.unsaved = places[0], True
        self.history.append((window, self.ids[window].copy()))
        self.ids[mask] = ids if isinstance(ids, int) else ids[mask]

    def undo(self) -> bool:
        """Take the last add() back; False if there is none."""
        if not self.history:
            return False
        window, ids = self.history.pop()
        self.ids[window], self.unsaved = ids, True
        return True


class Labels:
    """The pictures of a folder and what was saved of them. Raises UserError if OUT cannot take them."""

    def __init__(self, folder: str | Path, out: str | Path, names: Sequence[str] = (), coco: str | Path = ""):
        """names: the classes without background; empty: OUT's. coco: JSON to write, or none."""
        self.out, self.coco = Path(out), Path(coco) if coco else None
        self.pictures = list_pictures(Path(folder)) if Path(folder).is_dir() else []
        if not self.pictures:
            raise UserError(f"no pictures in {folder}, which holds {contents(Path(folder))}")
        owners = {}
        for file in self.pictures:
            for name in (file.stem, file.name):  # the loader takes a.png and a.jpg.png as the mask of a.jpg
                if (other := owners.setdefault(name.casefold(), file)) != file:
                    raise UserError(f"{other} and {file} would have the same mask: rename one of them")
        for other in ("images", "masks", "annotations", "TrainVal", "valid", "validation"):
            if (self.out / other).exists():
                raise UserError(
                    f"{self.out} holds {other}/, so its train/ and val/ would not be read together with it: choose "
                    "another folder with --OUT=..., or move images and masks into train/"
                )
        self.saved = {}  # name -> the picture in OUT
        for images in (self.out / split / "images" for split in SPLITS[:3]):
            masks, pictures = images.with_name("masks"), list_pictures(images) if images.is_dir() else []
            here = {file.stem: file for file in pictures if (masks / f"{file.stem}.png").exists()}
            for file in self.pictures:  # a mask came without its picture
                if (masks / f"{file.stem}.png").exists() and file.stem not in here:
                    here[file.stem] = images / file.name
                    link(file, here[file.stem])
            self.saved = here | self.saved
            known = {f"{file.stem}.png" for file in (*pictures, *self.pictures)}
            if other := [file for file in (list_files(masks) if masks.is_dir() else ()) if file.name not in known]:
                raise UserError(f"{other[0]} is no mask of a picture in {images}: masks are called PICTURE.png here")
        self._find_classes(names)
        if self.coco and self.coco.exists() and MADE_BY not in read_text(self.coco, "a COCO JSON")[:100]:
            raise UserError(f"{self.coco} was not made by {MADE_BY}: choose another file with --COCO=...")
        self.start, self.skipped = self._find_place()  # index of the picture to go on with; names
        self._described = {}  # name -> the JSON of the picture, and of its annotations
        self._numbers = {}  # name -> the picture's id in the JSON
        if self.coco:
            for name in sorted(self.saved):
                self._describe(name)
            self._write_coco()

    def _find_classes(self, names: Sequence[str]) -> None:
        file, names = classes_file(self.out), [normalize("NFC", name) for name in names]
        if not file and not self.saved:
            if not names:
                raise UserError(f"{self.out} has no classes.txt yet: name the classes, --CLASSES=cat,dog,rabbit")
            self.out.mkdir(parents=True, exist_ok=True)
            write_classes(["background", *names], self.out)
        self.classes = read_classes(self.out)
        if names and tuple(names) != self.classes.things:
            raise UserError(
                f"CLASSES = {','.join(names)}, but {file or self.out} lists {self.classes}: leave CLASSES out, or add "
                "a class as a last line to classes.txt"
            )
        if not self.classes.first:
            raise UserError(f"{file}: id 0 is {self.classes.names[0]}, but what is not labelled must be background")
        white = VOID
        with suppress(UserError):  # no mask shows a thing yet
            white = meaning_of_white(self.out, self.classes) if self.saved else VOID
        if white != VOID:  # with the first new mask the loader would read the old ones otherwise
            raise UserError(f"the masks in {self.out} are black and white: write {white} in place of 255 first")

    def _find_place(self) -> tuple[int, set[str]]:
        record = self.out / "label.json"
        try:
            state = json.loads(read_text(record, "label.py's place")) if record.exists() else {"at": "", "skipped": []}
            at, skipped = state["at"], set(state["skipped"]) - self.saved.keys()
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{record} is damaged ({error!r}): remove it; the masks stay") from error
        return next((index for index, file in enumerate(self.pictures) if file.name == at), 0), skipped

    def progress(self) -> str:
        """ "saved 12 of 40, skipped 3" """
        done = sum(file.stem in self.saved for file in self.pictures)
        skipped = sum(file.stem in self.skipped for file in self.pictures)
        return f"saved {done} of {len(self.pictures)}" + (f", skipped {skipped}" if skipped else "")

    def remember(self, index: int, skip: bool = False) -> None:
        """Note the picture where the work goes on, or that it is skipped."""
        file = self.pictures[index]
        if skip and file.stem not in self.saved:
            self.skipped.add(file.stem)
        self.start = index
        write_text(json.dumps({"at": file.name, "skipped": sorted(self.skipped)}) + "\n", self.out / "label.json")

    def load(self, index: int) -> Canvas:
        """A picture with its saved labels. Raises UserError, also if OUT has a different picture of that name."""
        file = self.pictures[index]
        image = read_image(file)
        ids = np.zeros(image.shape[:2], np.uint8)
        place = self._place_of(file)
        for own in filter(Path.exists, (self.saved.get(file.stem, file), place / "images" / file.name)):
            if own.name != file.name or not (own.samefile(file) or filecmp.cmp(own, file, shallow=False)):
                raise UserError(f"{own} is another picture than {file}: rename one of them, with its mask")
        if file.stem in self.saved:
            ids, (height, width) = self._read_ids(file.stem), image.shape[:2]
            if ids.shape != (height, width):
                tall, wide = ids.shape
                raise UserError(f"{self._mask(file.stem)} is {wide} x {tall}, but its picture is {width} x {height}")
        found = _bytes_of(place / "masks" / f"{file.stem}.png")
        return Canvas(file, image, ids, new=file.stem not in self.saved, found=found)

    def save(self, canvas: Canvas) -> None:
        """Write mask and picture; an earlier mask that this canvas did not write is kept in old_masks.

        Every file is written whole or not at all. Raises UserError, also if something else changed the mask meanwhile.
        """
        name, place = canvas.name, self._place_of(canvas.file)
        mask, picture = place / "masks" / f"{name}.png", place / "images" / canvas.file.name
        _require_unchanged(mask, canvas)
        try:
            if _bytes_of(mask) not in (b"", canvas.written):
                self._keep(mask)
            save_mask(canvas.ids, mask, self.classes)
            canvas.written = mask.read_bytes()
            link(canvas.file, picture)
            canvas.unsaved = False
        except OSError as error:
            raise UserError(f"{error.filename}: {error.strerror}; {name} is not saved") from error
        self.saved[name] = picture
        self.skipped.discard(name)
        if self.coco:
            self._describe(name, canvas.ids)
            self._write_coco()

    def withdraw(self, canvas: Canvas) -> None:
        """Take a picture out of the data set again, if it is in it; its mask is kept in old_masks."""
        if canvas.name not in self.saved:
            canvas.unsaved = False
            mask = self._place_of(canvas.file) / "masks" / f"{canvas.name}.png"
            if canvas.written and _bytes_of(mask) == canvas.written:  # its picture could not be written
                mask.unlink()
            return
        mask, picture = self._mask(canvas.name), self.saved[canvas.name]
        _require_unchanged(mask, canvas)
        self._keep(mask)
        if picture.resolve() != canvas.file.resolve():  # the folder of pictures may be OUT's own
            picture.unlink()  # a link or a copy
        mask.unlink()
        del self.saved[canvas.name]
        canvas.unsaved = False
        if self.coco:
            self._described.pop(canvas.name, None)
            self._write_coco()

    def split_of(self, name: str) -> str:
        """The split of a saved picture."""
        return self.saved[name].parents[1].name

    def _place_of(self, file: Path) -> Path:
        """The folder of the split that has a picture or its mask, else of the one where it belongs."""
        for place in (self.out / split for split in SPLITS[:3]):
            if (place / "masks" / f"{file.stem}.png").exists() or (place / "images" / file.name).exists():
                return place
        has_val = not self.saved or (self.out / "val").is_dir()  # else every 10th picture of train is for validation
        return self.out / ("train" if len(self.saved) % VAL_EVERY or not has_val else "val")

    def _mask(self, name: str) -> Path:
        return self.saved[name].parents[1] / "masks" / f"{name}.png"

    def _keep(self, mask: Path) -> None:
        """Link or copy a mask to the first free name in old_masks."""
        folder = mask.parent.with_name("old_masks")
        link(mask, next(old for number in count(1) if not (old := folder / f"{mask.stem}_{number}.png").exists()))

    def _read_ids(self, name: str) -> np.ndarray:
        """The class ids in the mask of a saved picture, uint8 (H, W)."""
        return read_mask(Sample(name, self.saved[name], self._mask(name), classes=self.classes))

    def _describe(self, name: str, ids: np.ndarray | None = None) -> None:
        """Keep the COCO entries of a picture as JSON, for the next _write_coco()."""
        picture = self.saved[name]
        ids = self._read_ids(name) if ids is None else ids
        number, (height, width) = self._numbers.setdefault(name, len(self._numbers) + 1), ids.shape
        image = {"id": number, "file_name": picture.relative_to(self.out).as_posix(), "width": width, "height": height}
        about = ({"id": number << 16 | region, "image_id": number} for region in count(1))
        entries = [head | entry for entry, head in zip(coco_entries(ids), about, strict=False)]
        self._described[name] = json.dumps(image), *map(json.dumps, entries)

    def _write_coco(self) -> None:
        """Write the JSON; its file names are relative to OUT. COCO's format has no void."""
        categories = [{"id": index, "name": name} for index, name in enumerate(self.classes.things, 1)]
        images = ",\n".join(image for image, *_ in self._described.values())
        annotations = ",\n".join(text for _, *texts in self._described.values() for text in texts)
        head = json.dumps({"info": {"description": MADE_BY}, "categories": categories})
        write_text(f'{head[:-1]}, "images": [\n{images}],\n"annotations": [\n{annotations}]}}\n', self.coco)


def _bytes_of(mask: Path) -> bytes:
    return mask.read_bytes() if mask.exists() else b""


def _require_unchanged(mask: Path, canvas: Canvas) -> None:
    if _bytes_of(mask) not in (canvas.found, canvas.written):
        raise UserError(f"{mask} was changed by another tab or program: reload the page")


def coco_entries(ids: np.ndarray) -> list[dict]:
    """COCO annotations of a mask of class ids (H, W), without image: one per connected region, as run lengths."""
    entries = []
    for index in sorted(set(np.unique(ids).tolist()) - {0, VOID}):
        regions, _ = ndimage.label(ids == index)
        for number, (rows, columns) in enumerate(ndimage.find_objects(regions), 1):
            region = regions == number
            outline = {"size": list(ids.shape), "counts": run_lengths(region)}
            entry = {"category_id": index, "iscrowd": 0, "area": int(region.sum()), "segmentation": outline}
            box = [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]
            entries.append(entry | {"bbox": box})
    return entries


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's run lengths of a mask, bool (H, W): column by column, first zeros, then ones, in turn."""
    flat = mask.ravel(order="F")
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff([0, *ends.tolist(), flat.size]).tolist()
    return [0, *lengths] if flat[0] else lengths


def take_masks(folder: str | Path, masks: str | Path, out: str | Path) -> str:
    """Add the pictures of a folder that have a mask NAME.png in `masks` to OUT; those in OUT stay. Returns a line.

    Classes are translated by name; a new OUT has those of the first mask. Raises UserError.
    """
    pictures = list_pictures(Path(folder)) if Path(folder).is_dir() else []
    files = {file.stem: mask for file in pictures if (mask := Path(masks) / f"{file.stem}.png").is_file()}
    if not files:
        raise UserError(f"no mask in {masks} has the name of a picture in {folder}: a.jpg belongs to a.png")
    things = classes_in(next(iter(files.values()))).things
    labels, lost, added = Labels(folder, out, () if classes_file(out) else things), set(), 0
    for index, picture in enumerate(labels.pictures):
        mask = files.get(picture.stem)
        if mask and picture.stem not in labels.saved:
            own = set((classes := classes_in(mask)).things)
            if not own & set(labels.classes.things):
                raise UserError(f"{mask} has the classes {', '.join(own)}, of which {out} has none: {labels.classes}")
            canvas = labels.load(index)
            canvas.ids[:] = read_foreign(mask, classes, labels.classes, canvas.ids.shape)
            labels.save(canvas)
            lost, added = lost | own - set(labels.classes.things), added + 1
    line = f"{out}: {added} pictures added, with those before {len(labels.saved)}; classes {labels.classes}"
    return line + f"; made background: {', '.join(sorted(lost))}" * bool(lost)


def classes_in(mask: Path) -> Classes:
    """The classes of a mask: from its text "classes", which predict.py writes, or a classes.txt beside it."""
    with open_picture(mask) as image:
        text = image.info.get("classes")
    if not text and not classes_file(mask.parent):
        raise UserError(f"{mask} does not name its classes: put a classes.txt beside it")
    return parse_classes(text, mask) if text else read_classes(mask.parent)


def read_foreign(mask: Path, classes: Classes, target: Classes, shape: tuple[int, int]) -> np.ndarray:
    """A mask of other classes as ids (H, W) of `target`, by name. UserError if it has another shape than `shape`."""
    ids = read_mask(Sample(mask.stem, mask, mask, classes=classes, white=_white_in(mask.parent, classes)))
    if ids.shape != shape:
        raise UserError(f"{mask} has another size than the picture")
    return translate(ids, classes, target)


@cache
def _white_in(folder: Path, classes: Classes) -> int:
    """The id of white in a folder of masks: VOID, or 1 if its classes.txt lists two classes and no mask has a 1."""
    if len(classes) != 2 or not classes_file(folder):
        return VOID
    masks = [file for file in list_pictures(folder) if classes_in(file) == classes]
    return VOID if any((read_mask(Sample("", mask, mask, classes=classes)) == 1).any() for mask in masks) else 1


def translate(ids: np.ndarray, source: Classes, target: Classes) -> np.ndarray:
    """Class ids (H, W) of one list of classes as those of another, by name; classes that it lacks: background."""
    table = np.zeros(256, np.uint8)
    table[VOID] = VOID
    for index, name in enumerate(source.names):
        table[index] = target.names.index(name) if name in target.names else 0
    return table[ids]


def link(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it where that is not possible; nothing if target is there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        return
    try:
        os.link(source.resolve(), target)
    except OSError:  # on another disk, or of another owner
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
