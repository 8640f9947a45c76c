"""Markdown tables, aligned for the terminal, and writing them into a README."""

from collections.abc import Callable, Sequence
from pathlib import Path

from utils.errors import UserError
from utils.files import write_text


def row_place(order: Sequence[str]) -> Callable[[dict[str, str]], tuple[int, str]]:
    """Sort key of lines by their "model": its place in `order`; other models come last, by name."""
    return lambda line: (order.index(line["model"]) if line["model"] in order else len(order), line["model"])


def markdown_table(titles: dict[str, str], lines: list[dict[str, str]], text_columns: int = 1) -> str:
    """A Markdown table with a row per line; a missing value becomes a dash.

    titles: key of a value -> title of its column. The first text_columns are left-aligned, the others right-aligned.
    """
    cells = [list(titles.values())] + [[str(line.get(column, "–")) for column in titles] for line in lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rules = ["-" * width if i < text_columns else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    cells.insert(1, rules)

    def align(number: int, cell: str) -> str:
        return cell.ljust(widths[number]) if number < text_columns else cell.rjust(widths[number])

    return "\n".join(f"| {' | '.join(align(i, cell) for i, cell in enumerate(row))} |" for row in cells)


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
