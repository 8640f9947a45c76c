"""Markdown tables and files that are written whole."""

import pytest

from experiments.readme import write_between_markers
from utils.errors import UserError
from utils.files import read_csv, replacing, write_csv, write_text
from utils.scoring.results import result_table


def test_only_what_stands_between_the_markers_is_replaced(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("a\n<!-- x -->\nold\n<!-- /x -->\n<!-- y -->\nkept\n<!-- /y -->\n")
    write_between_markers([path], {"x": "new", "gone": "?"})
    assert path.read_text() == "a\n<!-- x -->\nnew\n<!-- /x -->\n<!-- y -->\nkept\n<!-- /y -->\n"
    (tmp_path / "other.md").write_text("<!-- z -->\n<!-- /z -->\n")
    write_between_markers([str(path), str(tmp_path / "other.md")], {"x": "newer", "z": "2"})
    assert "newer" in path.read_text() and (tmp_path / "other.md").read_text() == "<!-- z -->\n2\n<!-- /z -->\n"
    with pytest.raises(UserError, match="no lines <!-- z -->"):
        write_between_markers([path], {"z": "new"})
    with pytest.raises(UserError, match="no lines"):
        write_between_markers([tmp_path / "gone.md"], {"x": "new"})


def test_a_csv_comes_back_as_it_was_written_and_none_is_empty(tmp_path):
    lines = [{"a": "1", "b": "x, y"}, {"a": "", "b": '"'}]
    write_csv(lines, tmp_path / "new" / "x.csv")
    assert read_csv(tmp_path / "new" / "x.csv") == lines
    assert read_csv(tmp_path / "none.csv") == []


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.txt"
    write_text("before", path)
    with pytest.raises(UserError, match="x.txt: half.*the old file is unchanged"), replacing(path) as temporary:
        temporary.write_text("ha")
        raise OSError("half")
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_a_name_of_250_bytes_can_be_written(tmp_path):
    for name in ("x" * 250, "\u8a9e" * 84):
        write_text("new", tmp_path / name)
        assert (tmp_path / name).read_text() == "new"


def test_an_interval_has_no_leading_zero_and_loses_no_one():
    shown = {("0.8912", "0.8975"): ".8912–.8975", ("0.9876", "1.0000"): ".9876–1.0000", ("", ""): ""}
    lines = [{"model": "a", "scales": "1", "flip": "0", "miou_low": low, "miou_high": high} for low, high in shown]
    table = result_table(lines, []).splitlines()[2:]
    assert [line.split("|")[6].strip() for line in table] == list(shown.values())


def test_only_a_background_at_id_0_is_left_out_of_the_table():
    about = {"model": "a", "scales": "1", "flip": "0", "miou_low": "", "miou_high": ""}
    for names, shown in {("background", "cat", "other"): ["cat", "other"], ("sky", "sign"): ["sky", "sign"]}.items():
        titles = result_table([about | {f"iou_{name}": "0.5" for name in names}], []).splitlines()[0].split("|")
        assert [title.strip() for title in titles if "IoU" in title and "mIoU" not in title] == [
            f"IoU {name}" for name in shown
        ]
