"""Writing tables into a README."""

from collections.abc import Sequence
from pathlib import Path

from utils.errors import UserError
from utils.files import write_text


def write_between_markers(files: Sequence[str | Path], texts: dict[str, str]) -> None:
    """Replace the text between `<!-- marker -->` and `<!-- /marker -->` in Markdown files; texts: marker -> new text.

    Raises UserError if no file has any of the markers.
    """
    found = 0
    for file in files:
        content = before = Path(file).read_text(encoding="utf-8") if Path(file).is_file() else ""
        for marker, text in texts.items():
            start, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
            if start in content and end in content:
                content = f"{content.partition(start)[0]}{start}\n{text}\n{end}{content.partition(end)[2]}"
                found += 1
        if content != before:
            write_text(content, file)
    if not found:
        wanted = " or ".join(f"<!-- {marker} --> and <!-- /{marker} -->" for marker in texts)
        raise UserError(f"README = {', '.join(map(str, files))}: no lines {wanted}")
