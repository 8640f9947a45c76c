"""The classes of a data set: names and colours, in the order of the ids. They come from the data's classes.txt."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from unicodedata import normalize

import numpy as np

from utils.errors import UserError
from utils.files import write_text

VOID = 255  # boundary pixels and padding: ignored by the loss and by the metric
VOID_COLOUR = (255, 255, 255)
MOST = 255  # ids 0 to 254

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Classes:
    """Names and colours of the ids 0, 1, ...; id 0 is the background."""

    names: tuple[str, ...]
    colours: tuple[Colour, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __str__(self) -> str:
        return ", ".join(self.names)

    @property
    def things(self) -> tuple[str, ...]:
        """The names behind background, ids from 1 on."""
        return self.names[1:]

    @cached_property
    def palette(self) -> np.ndarray:
        """The colour of every id, uint8 (256, 3): VOID is white, an id without a class black."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self)] = self.colours
        table[VOID] = VOID_COLOUR
        return table

    def colourise(self, mask: np.ndarray) -> np.ndarray:
        """Index mask (H, W) uint8 -> colour mask (H, W, 3) uint8."""
        return self.palette[mask]


def named(names: Sequence[str], colours: Sequence[Sequence[int]] = ()) -> Classes:
    """Classes with these names; colours: as many, or none for those of PASCAL VOC."""
    colours = colours or [voc_colour(index) for index in range(len(names))]
    return Classes(tuple(names), tuple(tuple(map(int, colour)) for colour in colours))


def voc_colour(index: int) -> Colour:
    """The colour of an id in PASCAL VOC's map: its bits, spread over the high bits of red, green and blue."""
    return tuple(sum((index >> 3 * bit + channel & 1) << 7 - bit for bit in range(3)) for channel in range(3))


PETS = named(("background", "cat", "dog"))  # (0, 0, 0), (128, 0, 0), (0, 128, 0)


def read_classes(root: str | Path) -> Classes:
    """The classes in root/classes.txt (or CVAT's labelmap.txt), a line each, background first.

    See parse_classes() for the lines. Without a file they are background, cat and dog. Raises UserError naming the
    file and the line.
    """
    path = classes_file(root)
    if not path:
        return PETS
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a list of classes ({error})") from error
    return parse_classes(text, path)


def classes_file(root: str | Path) -> Path | None:
    """The list of classes in a folder, in capitals or not; None if there is none."""
    files = {file.name.lower(): file for file in (Path(root).iterdir() if Path(root).is_dir() else ())}
    found = [files[name] for name in ("classes.txt", "labelmap.txt") if name in files and files[name].is_file()]
    return found[0] if found else None


_COLOUR = r"[\[(]?\s*(?P<red>\d+)[\s,;]+(?P<green>\d+)[\s,;]+(?P<blue>\d+)\s*[\])]?"
_LINES = (
    re.compile(rf"(?P<name>.+?)[\s,;:=]+{_COLOUR}(:[^:]*:[^:]*)?"),  # cat 128,0,0; CVAT: cat:128,0,0:parts:actions
    re.compile(rf"{_COLOUR}[\s,;:=]+(?P<name>.*[^\W\d].*)"),  # CamVid: 128 0 0 cat
    re.compile(r"(?P<name>[^:#]+)::[^:]*:[^:]*"),  # CVAT without a colour: cat:::
    # A name alone or behind its number; no list, no "key:", no "name: 0", no numbers alone, no comment behind it, and
    # no colour in another spelling.
    re.compile(
        r"(?!.*[:=]\s*\d+$|\d+[\s,;]+[\d\s,;]*$|.*\s(#|//|--|%)|.*\d[\s,;|]+[\d.]+[\s,;|]+\d)"
        r"(?P<name>(\d+\s*[,;\t]\s*)?[^,;\t;%/!*\-\"'<{\[]([^,;\t]*[^,;:=\t])?)"
    ),
)
_NUMBERED = re.compile(r"(\d+)(?:\s*(?:[:,;\t=)]|-+>?\s)|[\s.-])\s*(.*[^\W\d_].*)")  # 0: background
_FOUR = re.compile(r".*?(?P<first>[\s,;]+)\d+(?:(?P=first)\d+){3}\W*")  # cat 128 0 0 255: with transparency


def parse_classes(text: str, path: str | Path) -> Classes:
    """The classes in a text; path is for messages. Raises UserError naming the line that has no clear meaning.

    A line is a name and, if you like, a colour behind or before it, with commas, semicolons, tabs or spaces. All may
    be numbered from 0. Lines that begin with "# " are comments.
    """
    found = []
    for line in map(str.strip, normalize("NFC", text).splitlines()):
        if not line or re.fullmatch(r"#+(\s.*)?", line):
            continue
        match = next(filter(None, (form.fullmatch(line) for form in _LINES)), None)
        if not match or line[0] in "#\"'" or _FOUR.fullmatch(line):
            raise UserError(
                f"{path}: {line!r} is no class; write its name and, if you like, a colour: cat 128,0,0"
                + (" (a comment has a line of its own, which begins with '# ')" if "#" in line else "")
            )
        parts = match.groupdict()
        colour = "red" in parts and tuple(int(parts[channel]) for channel in ("red", "green", "blue"))
        found.append((line, parts["name"].strip(), colour))

    numbers = [_NUMBERED.fullmatch(name) for _, name, _ in found]
    if found and (all(numbers) or any(n and (int(n[1]) == 0 or re.match(r"\d+\s*[:,;\t=)]", n[0])) for n in numbers)):
        for index, (number, (line, _, colour)) in enumerate(zip(numbers, found, strict=True)):
            if not number or int(number[1]) != index:
                raise UserError(f"{path}: {line!r}: its number should be {index}; number all lines 0, 1, 2 ... or none")
            found[index] = line, number[2], colour

    if found and all(not c and re.fullmatch(rf".*\D\s+{index}", name) for index, (_, name, c) in enumerate(found)):
        raise UserError(f"{path}: {found[0][0]!r} ends in its number; write the names alone, or the numbers in front")

    names, colours = [], []
    for line, name, given in found:
        colour = given or voc_colour(len(names))
        if max(colour) > 255:
            raise UserError(f"{path}: {line!r} is no class; a colour is three numbers from 0 to 255: cat 128,0,0")
        if colour == VOID_COLOUR:
            raise UserError(f"{path}: {line!r}: white is the colour of void pixels, choose another")
        if name in names or colour in colours:
            raise UserError(f"{path}: {line!r}: its name or its colour {colour} is that of a class before it")
        names.append(name)
        colours.append(colour)
    if not 2 <= len(names) <= MOST:
        raise UserError(f"{path} lists {len(names)} classes: give background and 1 to {MOST - 1} others, a line each")
    return named(names, colours)


def about_background(classes: Classes) -> str:
    """What to know where id 0 is not called background; empty if it is."""
    usual = [re.fullmatch(r"\W*_*(back ?ground|bg|unlabell?ed|others?|none)_*\W*", n, re.I) for n in classes.names]
    if usual[0]:
        return ""
    where = next((f"background is id {index}" for index, match in enumerate(usual) if match), "there is no background")
    return f"id 0 is {classes.names[0]}: {where}"


def write_classes(names: Sequence[str], root: str | Path) -> None:
    """Write root/classes.txt, background first, with the colours of PASCAL VOC. Raises UserError for odd names."""
    path = Path(root) / "classes.txt"
    lines = [f"{name} {','.join(map(str, voc_colour(index)))}\n" for index, name in enumerate(names)]

    def lost(lines: Sequence[str], names: Sequence[str]) -> list[str]:
        try:
            read = parse_classes("".join(lines), path).names
        except UserError:
            read = ()
        return [name for name in names if name.strip() not in read]

    if lost(lines, names):
        alone = [name for line, name in zip(lines, names, strict=True) if lost([line, "! 1,1,1\n"], [name])]
        raise UserError(f"{path} cannot hold these names of classes, rename them: {', '.join(alone or names)}")
    write_text("".join(lines), path)


def require_same(model: Classes, data: Classes, checkpoint: str | Path, root: str | Path) -> None:
    """Raise UserError, with both lists, unless a checkpoint's classes are those of a data set."""
    if model.names != data.names:
        raise UserError(
            f"{checkpoint} was trained on other classes than those of the data:\n"
            f"  checkpoint: {model}\n  {root}: {data}"
        )
