"""Error analysis by hand."""

import torch

from utils.classes import PETS
from utils.inputs.layouts import Sample
from utils.scoring.error_analysis import error_table, per_image_lines


def test_shares_of_a_picture_by_hand():
    cat = torch.tensor([[80, 15, 5], [10, 60, 30], [0, 0, 0]])
    dog = torch.tensor([[50, 0, 0], [0, 0, 0], [5, 40, 5]])
    empty = torch.tensor([[50, 0, 0], [0, 0, 0], [0, 0, 0]])
    samples = [Sample("Maine_Coon_1", None, None, 1), Sample("pug_2", None, None), Sample("pug_3", None, None, 2)]
    first, second, third = per_image_lines("UNET", PETS.names, samples, torch.stack([cat, dog, empty]), data="pets")
    iou = (80 / 110 + 60 / 115 + 0) / 3
    shares = {"miou": f"{iou:.4f}", "confused": "0.3000", "missed": "0.1000", "false_positive": "0.2000"}
    shares["confusion"] = "80 15 5 10 60 30 0 0 0"
    about = {"data": "pets", "image": "Maine_Coon_1", "class": "cat", "breed": "Maine_Coon", "model": "UNET"}
    assert first == about | shares
    assert (second["class"], second["confused"], second["missed"], second["false_positive"]) == (
        *("dog", "0.8000", "0.1000", "0.0000"),
    )
    assert (third["missed"], third["confused"], third["miou"]) == ("", "", "1.0000")


def test_clicks_name_no_class():
    line = per_image_lines(
        "PointCLIP", ("rest", "thing"), [Sample("a_1", None, None)], torch.tensor([[[90, 10], [5, 45]]])
    )[0]
    assert (line["confused"], line["missed"], line["false_positive"], line["class"]) == ("", "0.1000", "0.1000", "")


def test_the_table_counts_bad_pictures_and_swapped_classes():
    blank = {"image": "a", "class": "cat", "breed": "a", "missed": "0.1000", "false_positive": "0.0000"}
    lines = [
        {**blank, "model": "UNET", "miou": "0.9000", "confused": "0.0000"},
        {**blank, "model": "UNET", "miou": "0.3000", "confused": "0.8000"},
        {**blank, "model": "UNET", "miou": "0.6000", "confused": "0.1000"},
        {**blank, "model": "UNET", "miou": "0.6000", "missed": "", "confused": ""},  # a mask without an animal
        {**blank, "model": "PointCLIP", "miou": "0.5000", "confused": ""},
    ]
    _, (unet, point) = error_table(lines)
    assert (unet["miou"], unet["confused"], unet["missed"], unet["bad"], unet["swapped"]) == (
        *("0.6000", "30.00%", "10.00%", "3", "1"),
    )
    assert point["bad"] == "1" and "swapped" not in point and "confused" not in point
