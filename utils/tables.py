"""Markdown tables, aligned for the terminal."""

from collections.abc import Callable, Sequence


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
