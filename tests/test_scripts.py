"""evaluate.py and predict.py on one tiny trained U-Net."""

import re

import numpy as np
import pytest
from conftest import run_here
from PIL import Image
from sklearn.metrics import jaccard_score

import evaluate
import predict
from utils import checkpoint
from utils.classes import VOID
from utils.errors import UserError
from utils.figures.overlays import outline
from utils.files import read_csv
from utils.inputs.layouts import list_samples
from utils.inputs.pictures import read_mask
from utils.rows import best_row

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def score(trained, capsys):
    """score(root, *options): what evaluate.py printed, and the lines of results.csv."""

    def run(root, *options):
        run_here(evaluate, f"--DATA_ROOT={root}", f"--CHECKPOINTS={trained}", "--ROWS=UNET", *options)
        return capsys.readouterr().out, read_csv("results/results.csv")

    return run


@pytest.fixture
def segment(trained, capsys):
    """segment(*arguments): the exit status of predict.py, and its messages."""

    def run(*arguments):
        status = run_here(predict, *arguments, f"--CHECKPOINTS={trained}", "--MODEL=unet")
        return status, capsys.readouterr().err

    return run


def test_the_printed_number_can_be_recomputed_from_the_saved_masks(score, oxford_root, tmp_path):
    stdout, lines = score(oxford_root, "--SAVE_MASKS=masks")
    truth, predicted = [], []
    for sample in list_samples(oxford_root, "test"):
        mask = read_mask(sample)
        prediction = np.array(Image.open(tmp_path / "masks" / "UNET" / f"{sample.name}.png"))
        assert prediction.shape == mask.shape
        truth.append(mask[mask != VOID])
        predicted.append(prediction[mask != VOID])
    miou = jaccard_score(np.concatenate(truth), np.concatenate(predicted), average="macro")
    assert lines[0]["miou"] == f"{miou:.4f}" and lines[0]["miou"] in stdout
    assert lines[0]["images"] == "8" and miou > 0.3


def test_lines_of_other_splits_are_kept_and_flip_has_a_line_of_its_own(score, oxford_root, tmp_path):
    score(oxford_root, "--SPLIT=val")
    stdout, lines = score(oxford_root, "--FLIP=True")
    assert [(line["model"], line["flip"], line["split"]) for line in lines] == [
        ("UNET", "0", "test"),
        ("UNET", "0", "val"),
        ("UNET", "1", "test"),
    ]
    assert stdout.count("| UNET ") == 2 and stdout.count("| 1 1.4      |") == stdout.count("| 1 1.4 flip |") == 1


def test_rows_without_a_checkpoint_are_a_dash_with_the_command_that_makes_them(score, oxford_root, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    stdout, _ = score(oxford_root, "--ROWS=")
    for row, hint in (("Autoencoder", "train_autoencoder.py"), ("CLIP", "train_clip.py"), ("CLIPSeg", "hf download")):
        assert re.search(rf"\| {row} +\| –", stdout) and hint in stdout


def test_a_picture_that_cannot_be_read_is_an_error(score, oxford_copy):
    (oxford_copy / "images" / "pug_test_01.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match="pug_test_01.jpg: cannot be read"):
        score(oxford_copy)


def test_predict_writes_masks_and_overlays_of_the_pictures_own_size_and_goes_on_past_a_bad_file(segment, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (37, 53, 4), np.uint8)
    Image.fromarray(noise).save(folder / "transparent.png")
    Image.fromarray(noise[..., 0]).save(folder / "grey.jpg")
    (folder / "broken.jpg").write_bytes(b"no picture")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    status, errors = segment("photos", "--OUT=out")
    assert status == 1 and "broken.jpg" in errors
    for name in ("transparent", "grey"):
        mask = Image.open(tmp_path / "out" / "masks" / f"{name}.png")
        assert mask.size == (53, 37) and set(np.unique(mask)) <= {0, 1, 2}
        assert Image.open(tmp_path / "out" / "overlays" / f"{name}.png").size == (53, 37)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_predict_takes_the_row_that_was_best_on_validation(trained, tmp_path, capsys):
    content = checkpoint.load(trained / "unet" / "best.safetensors")
    for name, model, score in (("unet", "unet", 0.7), ("Better", "unet", 0.8), ("pointclip", "pointclip", 0.9)):
        checkpoint.save({**content, "model": model, "score": score}, tmp_path / name / "best.safetensors")
    assert best_row(tmp_path) == "Better"
    for name, score in (("clip", 0.8), ("Better", 0.803), ("unet", 0.804)):  # luck
        checkpoint.save({**content, "score": score}, tmp_path / name / "best.safetensors")
    assert best_row(tmp_path) == "Better"
    (tmp_path / "Better" / "best.safetensors").write_bytes(b"half")
    assert best_row(tmp_path) == "CLIP" and "Better/best.safetensors is no checkpoint" in capsys.readouterr().out
    with pytest.raises(UserError, match="no row in .*nowhere has a checkpoint; `python train_unet.py` makes one"):
        best_row(tmp_path / "nowhere")


def test_predict_gives_many_pictures_what_it_gives_one_and_cuts_the_things_out(segment, oxford_root, tmp_path):
    pictures = [sample.image for sample in list_samples(oxford_root, "test")]
    assert not segment(*pictures, "--CUTOUT=True", "--OUT=many")[0]
    assert not segment(pictures[4], "--OUT=one")[0]
    assert len(list((tmp_path / "many" / "cutouts").iterdir())) == len(pictures) == 8
    name = f"{pictures[4].stem}.png"
    mask, alone = (np.array(Image.open(tmp_path / out / "masks" / name)) for out in ("many", "one"))
    assert (mask != alone).mean() < 0.001 and (mask > 0).any()
    cut, picture = np.array(Image.open(tmp_path / "many" / "cutouts" / name)), np.array(Image.open(pictures[4]))
    shown, soft = cut[..., 3] > 0, outline(mask, 1 + 2 * max(1, round(0.01 * np.hypot(*mask.shape))))
    assert np.array_equal(cut[..., 3][~soft], 255 * (mask > 0)[~soft]) and not soft.all()
    assert np.array_equal(cut[shown][:, :3], picture[shown])


def test_predict_never_overwrites_an_input_nor_one_output_with_another(segment, tmp_path):
    (tmp_path / "out" / "masks").mkdir(parents=True)
    picture = tmp_path / "out" / "masks" / "a.png"
    Image.new("RGB", (20, 20)).save(picture)
    before = picture.read_bytes()
    with pytest.raises(UserError, match="a.png is an input and would be overwritten"):
        segment(picture, "--OUT=out")
    assert picture.read_bytes() == before
    Image.new("RGB", (20, 20)).save(tmp_path / "a.jpg")
    assert segment(picture, tmp_path / "a.jpg", "--OUT=other") == (0, "")
    assert sorted(file.name for file in (tmp_path / "other" / "masks").iterdir()) == ["a.jpg.png", "a.png.png"]
    with pytest.raises(UserError, match="would both become a.jpg.png"):
        segment(picture, tmp_path / "a.jpg", "b/a.jpg", "--OUT=third")
    with pytest.raises(UserError, match="would both become A.jpg.png"):  # on a disk that ignores capitals
        segment(tmp_path / "a.jpg", "b/A.jpg", "--OUT=third")
    assert not (tmp_path / "third").exists()
    status, message = segment(tmp_path / "a.jpg", "--POINT=3,3", "--OUT=fourth")
    assert status == 1 and "a.jpg: UNET takes no click" in message


def test_predict_without_pictures_or_checkpoint_says_what_to_do():
    Image.new("RGB", (20, 20)).save("a.jpg")
    with pytest.raises(UserError, match="name at least one picture"):
        predict.main([])
    with pytest.raises(UserError, match="train_unet.py"):
        run_here(predict, "a.jpg", "--CHECKPOINTS=none")
