"""What went wrong in which picture, by hand; its table."""

import torch

from experiments.errors import error_table
from utils.classes import PETS
from utils.inputs.layouts import Sample
from utils.scoring.per_image import confusions_of, per_image_lines


def test_shares_of_a_picture_by_hand():
    cat = torch.tensor([[80, 15, 5], [10, 60, 30], [0, 0, 0]])
    dog = torch.tensor([[50, 0, 0], [0, 0, 0], [5, 40, 5]])
    empty = torch.tensor([[50, 0, 0], [0, 0, 0], [0, 0, 0]])
    samples = [Sample("Maine_Coon_1", None, None, 1), Sample("pug_2", None, None), Sample("pug_3", None, None, 2)]
    first, second, third = per_image_lines("UNET", PETS.names, samples, torch.stack([cat, dog, empty]), data="pets")
    shares = {"miou": f"{(80 / 110 + 60 / 115 + 0) / 3:.4f}", "confused": "0.3000", "missed": "0.1000"}
    shares |= {"false_positive": "0.2000", "confusion": "80 15 5 10 60 30 0 0 0"}
    about = {"data": "pets", "image": "Maine_Coon_1", "class": "cat", "breed": "Maine_Coon", "model": "UNET"}
    assert first == about | shares
    keys = ("class", "confused", "missed", "false_positive", "miou")
    assert [second[key] for key in keys[:4]] == ["dog", "0.8000", "0.1000", "0.0000"]
    assert [third[key] for key in keys] == ["dog", "", "", "0.0000", "1.0000"]
    clicked = torch.tensor([[[90, 10], [5, 45]]])
    (found,) = per_image_lines("PointCLIP", ("rest", "thing"), samples[1:2], clicked)  # names no class
    assert [found[key] for key in keys[:4]] == ["", "", "0.1000", "0.1000"]


def line(model: str, image: str, confusion: str, miou: str = "0.5000", **shares: str) -> dict[str, str]:
    """A line of per_image.csv."""
    shares = {"confused": "", "missed": "", "false_positive": ""} | shares
    return {"data": "pets", "model": model, "image": image, "confusion": confusion, "miou": miou} | shares


def table_of(lines: list[dict[str, str]]) -> list[list[str]]:
    """The rows of error_table(), a cell each; the first are the titles."""
    return [
        [cell.strip() for cell in row.split("|")[1:-1]] for row in error_table(lines).splitlines() if "--" not in row
    ]


def test_the_table_counts_bad_pictures_and_swapped_classes():
    same = {"missed": "0.1000", "false_positive": "0.0000"}
    mious, confused = ("0.9000", "0.3000", "0.6000", "0.6000"), ("0.0000", "0.8000", "0.1000", "")
    lines = [line("UNET", "a", "", a, **same, confused=b) for a, b in zip(mious, confused, strict=True)]
    lines[-1]["missed"] = ""  # a mask without an animal
    _, unet, point = table_of([*lines, line("PointCLIP", "a", "", **same)])
    assert unet == ["UNET", "0.6000", "30.00%", "10.00%", "0.00%", "3", "1"]
    assert point == ["PointCLIP", "0.5000", "–", "10.00%", "0.00%", "1", "–"]


def test_the_table_has_the_score_without_masks_that_are_wrong():
    wrong = "Persian_268", "0 50 50 0"
    lines = [line("UNET", "Persian_1", "60 20 0 20"), line("UNET", *wrong), line("PointCLIP", *wrong)]
    titles, unet, point = table_of(lines)
    assert (titles[-1], unet[-1]) == ("mIoU without wrong masks", "0.6250")  # 60 of 80 and 20 of 40 pixels
    assert point[-1] == "–"  # it saw no picture with a right mask


def test_the_matrices_of_pictures_add_up_to_their_row_s():
    counts = {"UNET": ("1 0 0 0 2 0 0 0 3", "0 1 0 0 0 0 4 0 0"), "PointCLIP": ("5 6 7 8",), "old": ("",)}
    lines = [{"model": model, "confusion": text} for model, texts in counts.items() for text in texts]
    found = confusions_of(lines, PETS.names)
    assert list(found) == ["UNET", "PointCLIP"]
    assert found["UNET"][0] == PETS.names and found["UNET"][1].tolist() == [[1, 1, 0], [0, 2, 0], [4, 0, 3]]
    assert found["PointCLIP"][0] == ("rest", "thing") and found["PointCLIP"][1].tolist() == [[5, 6], [7, 8]]
