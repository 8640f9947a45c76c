"""Files that are written whole or not at all, text files, CSV."""

import csv
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock

from utils.errors import UserError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path to write to; when the block ends, that file is flushed to disk and replaces `path`.

    Raises UserError if it cannot be written; a file that was there before is then untouched.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name[:50]}.{uuid4().hex}.tmp")  # a name has 255 bytes at most
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
        raise UserError(f"cannot write {path}: {error}; the old file is unchanged") from error
    finally:
        with suppress(OSError):  # it is gone after a success
            temporary.unlink()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """While the block runs, other processes that want to change `path` wait. UserError if its folder is read-only."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock")).acquire()
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from error
    with lock:
        yield


def write_text(text: str, path: str | Path) -> None:
    """Replace a small text file: JSON, Markdown."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")  # of odd file names


def read_text(path: str | Path, what: str) -> str:
    """A text file in UTF-8. Raises UserError naming it and `what` it should be."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as {what} ({error})") from error


def read_csv(path: str | Path) -> list[dict[str, str]]:
    """The lines of a CSV; empty if there is no file. Raises UserError."""
    return list(csv.DictReader(io.StringIO(read_text(path, "a CSV")))) if Path(path).exists() else []


def write_csv(lines: list[dict], path: str | Path) -> None:
    """Replace a CSV; missing columns of a line stay empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, dict.fromkeys(key for line in lines for key in line), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_text(text.getvalue(), path)
