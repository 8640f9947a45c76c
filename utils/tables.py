"""Markdown tables that read well in a terminal too, and their place in README.md."""

from pathlib import Path

from utils.errors import UserError
from utils.files import write_text


def markdown_table(titles: dict[str, str], lines: list[dict[str, str]], text_columns: int = 1) -> str:
    """One line per dict. titles: key of a line -> title of its column; the first text_columns are flush left.

    A key that a line lacks becomes a dash.
    """
    cells = [list(titles.values())] + [[str(line.get(column, "–")) for column in titles] for line in lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rules = ["-" * width if i < text_columns else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    cells.insert(1, rules)

    def align(number: int, cell: str) -> str:
        return cell.ljust(widths[number]) if number < text_columns else cell.rjust(widths[number])

    return "\n".join(f"| {' | '.join(align(i, cell) for i, cell in enumerate(row))} |" for row in cells)


def write_between_markers(path: str | Path, marker: str, text: str) -> None:
    """Replace what stands between `<!-- marker -->` and `<!-- /marker -->` in a Markdown file."""
    path = Path(path)
    start, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    content = path.read_text(encoding="utf-8") if path.is_file() else ""
    if start not in content or end not in content:
        raise UserError(f"README = {path} has no lines {start} and {end}")
    before, after = content.partition(start)[0], content.partition(end)[2]
    write_text(f"{before}{start}\n{text}\n{end}{after}", path)
