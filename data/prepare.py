"""Get the data: download Oxford-IIIT Pet, draw a small synthetic one, or import COCO annotations, masks or PASCAL VOC.

    python data/prepare.py                    # 800 MB into data/pets; run it again after an interruption
    python data/prepare.py --SYNTHETIC=True   # 300 drawn cats and dogs into data/synthetic, in seconds
    python data/prepare.py --SYNTHETIC=True --CLASSES=cat,rabbit,bird --SYNTHETIC_ROOT=data/animals   # other classes
    python data/prepare.py --COCO=instances.json --PICTURES=pictures --OUT=data/mine   # your own
    python data/prepare.py --MASKS=predictions/masks --PICTURES=photos --OUT=data/mine # what predict.py wrote
    python data/prepare.py --VOC=2012 --CATEGORIES=cat,dog                             # 2 GB, into data/voc2012

data/README.md describes the layouts. A data set appears in its folder only when it is complete; MASKS adds to one. To
train on it, add for example `--DATA_ROOT=data/synthetic`; without it the scripts read data/pets.
"""

import shutil
import sys
from pathlib import Path

# Python finds only modules in the script's own folder: add the repository.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.config import PETS_ROOT, require_between, require_positive, run_script, script_constants  # noqa: E402

from torchvision.datasets import OxfordIIITPet  # noqa: E402

from data import voc  # noqa: E402
from data.drawing.dataset import ANIMALS, write_drawings  # noqa: E402
from data.folder_layout import describe, fetch, holds, occupied, require_known  # noqa: E402
from data.labelling import take_masks  # noqa: E402
from utils.errors import UserError  # noqa: E402
from utils.inputs.layouts import list_samples  # noqa: E402

# Oxford-IIIT Pet
DATA_ROOT = PETS_ROOT or str(Path(__file__).with_name("pets"))  # where the other scripts look for it
# synthetic data
SYNTHETIC = False  # True: draw pictures instead of downloading any
SYNTHETIC_ROOT = str(Path(__file__).with_name("synthetic"))  # the folder to write
CLASSES = ("cat", "dog")  # any of cat,dog,rabbit,bird, in the order of their ids
TRAIN_PICTURES = 240  # for training and validation
TEST_PICTURES = 60
SIDES = (128, 160)  # shortest and longest side of a picture, in pixels
SEED = 0  # for drawing and for SPLIT
# your own annotations in COCO's format
COCO = ()  # JSON files: one, divided by SPLIT; two: train,test; three: train,val,test
PICTURES = ()  # the folder that the JSON's file names are relative to, or one per JSON; with MASKS: the pictures
SPLIT = (0.8, 0.1, 0.1)  # shares of train, val and test
CROWDS = "auto"  # what iscrowd marks: "objects" or "void"; "auto": void if they look like COCO's, not CVAT's
MASKS = ""  # folder of masks NAME.png in place of COCO; each names its classes, or a classes.txt beside them does
# PASCAL VOC
VOC = ""  # the year, 2007 to 2012
VOC_ROOT = str(Path(__file__).with_name("voc"))  # the folder with VOCdevkit, which is downloaded if missing
# COCO and VOC
OUT = ""  # the folder to write; empty, for VOC: data/voc and the year
CATEGORIES = ()  # classes to keep, in this order; empty: all
NAME = ""  # the data set's name in tables of results; empty: VOC and the year, or for COCO the name of OUT


def main() -> None:
    if sum(map(bool, (SYNTHETIC, COCO, MASKS, VOC))) > 1:
        raise UserError("SYNTHETIC, COCO, MASKS and VOC exclude each other: choose one")
    if CLASSES != ("cat", "dog") and not SYNTHETIC:
        raise UserError("CLASSES needs --SYNTHETIC=True (for COCO and VOC, CATEGORIES chooses classes)")
    if PICTURES and not (COCO or MASKS):
        raise UserError("PICTURES needs --COCO=instances.json or --MASKS=FOLDER")
    if MASKS and (len(PICTURES) != 1 or not OUT or CATEGORIES or NAME):
        raise UserError("MASKS needs --PICTURES=FOLDER and --OUT=data/mine, and takes no CATEGORIES or NAME")
    if (OUT or CATEGORIES) and not (COCO or MASKS or VOC):
        raise UserError("OUT and CATEGORIES need --COCO, --MASKS or --VOC; for drawings set SYNTHETIC_ROOT and CLASSES")
    require_between(globals(), 0, 2**32, "SEED")
    try:
        if SYNTHETIC:
            synthesise(Path(SYNTHETIC_ROOT).resolve())
        elif COCO:
            if not OUT:
                raise UserError("COCO needs a folder to write: --OUT=data/mine")
            try:
                from data import coco
            except ImportError as error:
                raise UserError(f"--COCO needs pycocotools: pip install pycocotools ({error})") from error
            target = Path(OUT).resolve()
            coco.convert(target, NAME or target.name, script_constants(main))
        elif MASKS:
            print(take_masks(PICTURES[0], MASKS, OUT))
        elif VOC:
            target = Path(OUT) if OUT else Path(__file__).with_name(f"voc{VOC}")
            voc.convert(target.resolve(), NAME or f"VOC {VOC}", VOC, Path(VOC_ROOT).resolve(), CATEGORIES)
        else:
            download(Path(DATA_ROOT).resolve())
    except OSError as error:
        raise UserError(f"the data cannot be read or written: {error}") from error


def download(target: Path) -> None:
    """Fetch and unpack Oxford-IIIT Pet, unless target holds it already. Raises UserError."""
    if occupied(target):
        print(f"{target} is complete ({count_pictures(target)}): nothing to do")
        return
    source = "https://www.robots.ox.ac.uk/~vgg/data/pets/"
    by_hand = f"fetch images.tar.gz and annotations.tar.gz from\n{source} and unpack both in {target}"
    fetch(unpack, "oxford-iiit-pet", target, by_hand)
    for archive in target.glob("*.tar.gz"):
        archive.unlink()
    print(f"{target}: {count_pictures(target)}")


def unpack(root: Path) -> None:
    """Fetch and unpack with torchvision, 800 MB. It would skip a half-unpacked folder: remove that first."""
    for name in ("images", "annotations"):
        shutil.rmtree(root / "oxford-iiit-pet" / name, ignore_errors=True)
    OxfordIIITPet(root, target_types="segmentation", download=True)


def count_pictures(root: Path) -> str:
    """The sizes of the splits as text. Raises UserError if a file is missing."""
    trainval, test = (len(list_samples(root, split)) for split in ("trainval", "test"))
    return f"{trainval} pictures for training and validation, {test} for testing"


def synthesise(target: Path) -> None:
    """Draw the synthetic data set, unless target holds it already. Raises UserError."""
    about = {"TRAIN_PICTURES": TRAIN_PICTURES, "TEST_PICTURES": TEST_PICTURES, "SIDES": SIDES, "SEED": SEED}
    require_positive(about, "TRAIN_PICTURES", "TEST_PICTURES")
    if len(SIDES) != 2 or not 64 <= SIDES[0] <= SIDES[1]:
        raise UserError(f"SIDES = {SIDES}: must be two numbers, at least 64, the smaller one first")
    require_known("CLASSES", CLASSES, tuple(ANIMALS), "the animals that can be drawn")
    record, counts = describe("synthetic", CLASSES=CLASSES, **about), (TRAIN_PICTURES, TEST_PICTURES)
    if not holds(target, record, "SYNTHETIC_ROOT"):
        write_drawings(target, record, CLASSES, *counts, SIDES, SEED)


if __name__ == "__main__":
    run_script(main)
