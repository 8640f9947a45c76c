"""What went wrong in which picture, by hand; its table."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from experiments.errors import error_table, shares_of
from utils.errors import UserError
from utils.files import read_csv
from utils.inputs.layouts import Sample
from utils.inputs.pictures import rng_of
from utils.scoring.results import merge_lines, per_image_lines


def test_a_line_has_the_picture_s_matrix():
    cat = torch.tensor([[80, 15, 5], [10, 60, 30], [0, 0, 0]])
    empty = torch.tensor([[50, 0, 0], [0, 0, 0], [0, 0, 0]])
    samples = [Sample("Maine_Coon_1", None, None, 1), Sample("pug_3", None, None, 2)]
    first, second = per_image_lines("UNET", samples, torch.stack([cat, empty]), data="pets")
    about = {"data": "pets", "image": "Maine_Coon_1", "breed": "Maine_Coon", "model": "UNET"}
    assert first == about | {"miou": f"{(80 / 110 + 60 / 115 + 0) / 3:.4f}", "confusion": "80 15 5 10 60 30 0 0 0"}
    assert second["miou"] == "1.0000"


def test_a_file_name_that_is_no_utf_8_is_written_and_has_its_own_random_numbers(tmp_path):
    name = "caf\udce9"  # what Python makes of a byte from an old ZIP
    (written,) = merge_lines([line("UNET", name, "1 0 0 1")], tmp_path / "per_image.csv", ["UNET"], ("model", "data"))
    assert written["image"] == r"caf\udce9"
    assert rng_of(name).random() != rng_of("caf").random()


def test_lines_that_are_added_at_once_are_all_there(tmp_path):
    names, path = [f"row {number}" for number in range(40)], tmp_path / "new" / "results.csv"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: merge_lines([line(name, "a", "1")], path, names, ("model", "data")), names))
    assert [each["model"] for each in read_csv(path)] == names
    with pytest.raises(UserError, match="cannot write .*results.csv/per_image.csv"):
        merge_lines([line("UNET", "a", "1")], path / "per_image.csv", ["UNET"], ("model", "data"))


def test_shares_of_wrong_pixels_by_hand():
    cat, empty = [[80, 15, 5], [10, 60, 30], [0, 0, 0]], [[50, 0, 0], [0, 0, 0], [0, 0, 0]]
    shares = shares_of(np.array([cat, empty]))
    assert [values[0] for values in shares.values()] == [0.3, 0.1, 0.2]
    assert np.isnan(shares["missed"][1]) and shares["false_positive"][1] == 0


def line(model: str, image: str, confusion: str, miou: str = "0.5000") -> dict[str, str]:
    """A line of per_image.csv."""
    return {"data": "pets", "model": model, "image": image, "confusion": confusion, "miou": miou}


def table_of(lines: list[dict[str, str]]) -> list[list[str]]:
    """The rows of error_table(), a cell each; the first are the titles."""
    return [
        [cell.strip() for cell in row.split("|")[1:-1]] for row in error_table(lines).splitlines() if "--" not in row
    ]


def test_the_table_counts_bad_pictures_and_swapped_classes():
    matrices = {"90 0 0 1 9 0 0 0 0": "0.9000", "90 0 0 1 1 8 0 0 0": "0.3000", "90 0 0 1 8 1 0 0 0": "0.6000"}
    lines = [line("UNET", "a", matrix, miou) for matrix, miou in matrices.items()]
    lines.append(line("UNET", "a", "90 0 0 0 0 0 0 0 0", "0.6000"))  # a mask without an animal
    _, unet, point = table_of([*lines, line("PointCLIP", "a", "90 0 1 9")])
    assert unet == ["UNET", "0.6000", "30.00%", "10.00%", "0.00%", "3", "1"]
    assert point == ["PointCLIP", "0.5000", "–", "10.00%", "0.00%", "1", "–"]


def test_the_table_has_the_score_without_masks_that_are_wrong():
    wrong = "Persian_268", "0 50 50 0"
    lines = [line("UNET", "Persian_1", "60 20 0 20"), line("UNET", *wrong), line("PointCLIP", *wrong)]
    titles, unet, point = table_of(lines)
    assert (titles[-1], unet[-1]) == ("mIoU without wrong masks", "0.6250")  # 60 of 80 and 20 of 40 pixels
    assert point[-1] == "–"  # it saw no picture with a right mask
