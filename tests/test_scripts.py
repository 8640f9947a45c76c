"""evaluate.py and predict.py in processes of their own, on one tiny trained U-Net."""

import csv
import re
import shutil

import numpy as np
import pytest
import warm
from conftest import REPOSITORY, script_environment
from PIL import Image
from sklearn.metrics import jaccard_score

from utils import checkpoint
from utils.classes import PETS, VOID
from utils.errors import UserError
from utils.files import write_csv
from utils.inputs.layouts import list_samples
from utils.inputs.pictures import read_mask
from utils.rows import best_row

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(oxford_root, tmp_path_factory):
    """A folder with checkpoints/unet/best.safetensors."""
    folder = tmp_path_factory.mktemp("trained")
    options = ("--IMAGE_SIZE=32", "--SMALL_SIZE=32", "--WIDTH=8", "--DEPTH=3", "--EPOCHS=25", "--BATCH_SIZE=7")
    every = (f"--DATA_ROOT={oxford_root}", *options, "--EMA_DECAY=0.9")
    warm.run(REPOSITORY / "train_unet.py", every, folder, script_environment(), 300).check_returncode()
    return folder / "checkpoints"


@pytest.fixture
def evaluate(run_script, trained, tmp_path):
    def run(root, *options):
        done = run_script("evaluate.py", f"--DATA_ROOT={root}", f"--CHECKPOINTS={trained}", "--ROWS=UNET", *options)
        assert done.returncode == 0, done.stderr
        with open(tmp_path / "results" / "results.csv") as file:
            return done.stdout, list(csv.DictReader(file))

    return run


def test_the_printed_number_can_be_recomputed_from_the_saved_masks(evaluate, oxford_root, tmp_path):
    stdout, lines = evaluate(oxford_root, "--SAVE_MASKS=masks")
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


def test_course_and_oxford_layout_of_the_same_pictures_give_the_same_line(evaluate, oxford_root, tmp_path):
    course = tmp_path / "course"
    for split, folder in (("trainval", "TrainVal"), ("test", "Test")):
        for kind in ("color", "label"):
            (course / folder / kind).mkdir(parents=True)
        for sample in list_samples(oxford_root, split):
            shutil.copy(sample.image, course / folder / "color")
            Image.fromarray(PETS.colourise(read_mask(sample))).save(course / folder / "label" / f"{sample.name}.png")
    _, oxford_lines = evaluate(oxford_root)
    _, course_lines = evaluate(course, "--BATCH_SIZE=3")
    assert [line["data"] for line in course_lines] == ["Oxford-IIIT Pet", "course"]  # other data, other lines
    assert course_lines[0] == oxford_lines[0]
    for line in course_lines:
        del line["images_per_second"], line["data"]
    assert course_lines[0] == course_lines[1]


def test_lines_of_other_splits_are_kept_and_flip_has_a_line_of_its_own(evaluate, oxford_root):
    evaluate(oxford_root, "--SPLIT=val")
    stdout, lines = evaluate(oxford_root, "--FLIP=True")
    assert [(line["model"], line["flip"], line["split"]) for line in lines] == [
        ("UNET", "0", "test"),
        ("UNET", "0", "val"),
        ("UNET", "1", "test"),
    ]
    assert stdout.count("| UNET ") == 2 and stdout.count("| 1 1.4      |") == stdout.count("| 1 1.4 flip |") == 1


def test_the_readme_table_is_written_between_its_markers(evaluate, oxford_root, tmp_path):
    readme = tmp_path / "README.md"
    results, errors = "results Oxford-IIIT Pet", "errors Oxford-IIIT Pet"
    readme.write_text(
        f"before\n<!-- {results} -->\nold\n<!-- /{results} -->\n<!-- {errors} -->\n<!-- /{errors} -->\nafter\n"
    )
    _, lines = evaluate(oxford_root, "--README=README.md")
    text = readme.read_text()
    assert text.startswith(f"before\n<!-- {results} -->\n| model") and text.endswith(f"<!-- /{errors} -->\nafter\n")
    assert lines[0]["miou"] in text and "old" not in text
    assert re.search(r"\| CLIPSeg +\| ", text)  # not asked for and not measured: it keeps its line


def test_speed_alone_is_measured_again_for_every_line(evaluate, run_script, trained, oxford_root, tmp_path):
    evaluate(oxford_root, "--SPLIT=val")
    _, before = evaluate(oxford_root, "--FLIP=True")
    write_csv([{**line, "images_per_second": "?"} for line in before], tmp_path / "results" / "results.csv")
    (tmp_path / "README.md").write_text("<!-- results Oxford-IIIT Pet -->\n<!-- /results Oxford-IIIT Pet -->\n")
    stdout, after = evaluate(oxford_root, "--SPEED=True", "--PICTURES=4", "--README=README.md")
    speeds = [line.pop("images_per_second") for line in after]
    assert speeds[1] == "?" and all(float(speed) > 0 for speed in speeds[::2])  # the second line is of val
    assert after == [{key: line[key] for key in line if key != "images_per_second"} for line in before]
    assert f" {speeds[0]} |" in stdout and f" {speeds[2]} |" in (tmp_path / "README.md").read_text()

    options = f"--DATA_ROOT={oxford_root}", f"--CHECKPOINTS={trained}", "--ROWS=UNET", "--SPEED=True"
    other = run_script("evaluate.py", *options, "--SCALES=1")
    assert other.returncode == 1 and "UNET was scored at 1 1.4, here it is set to 1" in other.stderr
    none = run_script("evaluate.py", *options, "--SPLIT=trainval")
    assert none.returncode == 1 and "has no line of these rows" in none.stderr


def test_rows_without_a_checkpoint_are_a_dash_with_the_command_that_makes_them(run_script, oxford_root, trained):
    done = run_script(
        "evaluate.py", f"--DATA_ROOT={oxford_root}", f"--CHECKPOINTS={trained}", env={"HF_HUB_OFFLINE": "1"}
    )
    assert done.returncode == 0, done.stderr
    for row, hint in (("Autoencoder", "train_autoencoder.py"), ("CLIP", "train_clip.py"), ("CLIPSeg", "hf download")):
        assert re.search(rf"\| {row} +\| –", done.stdout) and hint in done.stdout


def test_a_picture_that_cannot_be_read_is_an_error_or_stands_in_the_table(run_script, evaluate, trained, oxford_copy):
    (oxford_copy / "images" / "pug_test_01.jpg").write_bytes(b"no picture")
    options = (f"--DATA_ROOT={oxford_copy}", f"--CHECKPOINTS={trained}", "--ROWS=UNET")
    refused = run_script("evaluate.py", *options)
    assert refused.returncode == 1 and "pug_test_01.jpg: cannot be read" in refused.stderr
    stdout, lines = evaluate(oxford_copy, "--SKIP_BAD=True")
    assert lines[0]["images"] == "7 of 8" and "| 7 of 8 |" in stdout
    assert "left out of test: " in stdout and "pug_test_01.jpg" in stdout


def test_no_row_at_all_is_an_error(run_script, oxford_root):
    done = run_script("evaluate.py", f"--DATA_ROOT={oxford_root}", "--CHECKPOINTS=nowhere", "--ROWS=UNET")
    assert done.returncode == 1 and "no row could be scored" in done.stderr and "Traceback" not in done.stderr


def test_predict_writes_masks_and_overlays_of_the_pictures_own_size_and_goes_on_past_a_bad_file(
    run_script, trained, tmp_path
):
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (37, 53, 4), np.uint8)
    Image.fromarray(noise).save(folder / "transparent.png")
    Image.fromarray(noise[..., 0]).save(folder / "grey.jpg")
    (folder / "broken.jpg").write_bytes(b"no picture")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    done = run_script("predict.py", "photos", f"--CHECKPOINTS={trained}", "--OUT=out")
    assert done.returncode == 1 and "broken.jpg" in done.stderr and "Traceback" not in done.stderr
    for name in ("transparent", "grey"):
        mask = Image.open(tmp_path / "out" / "masks" / f"{name}.png")
        assert mask.size == (53, 37) and set(np.unique(mask)) <= {0, 1, 2}
        assert Image.open(tmp_path / "out" / "overlays" / f"{name}.png").size == (53, 37)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_predict_takes_the_row_that_was_best_on_validation(trained, tmp_path):
    content = checkpoint.load(trained / "unet" / "best.safetensors")
    for name, model, score in (("unet", "unet", 0.7), ("Better", "unet", 0.8), ("pointclip", "pointclip", 0.9)):
        checkpoint.save({**content, "model": model, "score": score}, tmp_path / name / "best.safetensors")
    assert best_row(tmp_path) == "Better"
    with pytest.raises(UserError, match="no row in .*nowhere has a checkpoint; `python train_unet.py` makes one"):
        best_row(tmp_path / "nowhere")


def test_predict_gives_many_pictures_what_it_gives_one_and_cuts_the_things_out(
    run_script, trained, oxford_root, tmp_path
):
    pictures = [sample.image for sample in list_samples(oxford_root, "test")]
    options = (f"--CHECKPOINTS={trained}", "--CUTOUT=True")
    assert run_script("predict.py", *pictures, *options, "--OUT=many", "--BATCH_SIZE=3").returncode == 0
    assert run_script("predict.py", *pictures[4:5], *options, "--OUT=one").returncode == 0
    assert len(list((tmp_path / "many" / "cutouts").iterdir())) == len(pictures) == 8
    name = f"{pictures[4].stem}.png"
    mask, alone = (np.array(Image.open(tmp_path / out / "masks" / name)) for out in ("many", "one"))
    assert (mask != alone).mean() < 0.001 and (mask > 0).any()
    cut, picture = np.array(Image.open(tmp_path / "many" / "cutouts" / name)), np.array(Image.open(pictures[4]))
    assert np.array_equal(cut[..., 3] > 0, mask > 0) and np.array_equal(cut[mask > 0][:, :3], picture[mask > 0])


def test_predict_never_overwrites_an_input_nor_one_output_with_another(run_script, trained, tmp_path):
    (tmp_path / "out" / "masks").mkdir(parents=True)
    picture = tmp_path / "out" / "masks" / "a.png"
    Image.new("RGB", (20, 20)).save(picture)
    before = picture.read_bytes()
    done = run_script("predict.py", picture, f"--CHECKPOINTS={trained}", "--OUT=out")
    assert done.returncode == 1 and "overwritten" in done.stderr and picture.read_bytes() == before
    Image.new("RGB", (20, 20)).save(tmp_path / "a.jpg")
    done = run_script("predict.py", picture, tmp_path / "a.jpg", f"--CHECKPOINTS={trained}", "--OUT=other")
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in (tmp_path / "other" / "masks").iterdir()) == ["a.jpg.png", "a.png.png"]
    done = run_script("predict.py", picture, tmp_path / "a.jpg", "b/a.jpg", f"--CHECKPOINTS={trained}", "--OUT=third")
    assert done.returncode == 1 and "would both become a.jpg.png" in done.stderr and not (tmp_path / "third").exists()


def test_predict_without_pictures_or_checkpoint_says_what_to_do(run_script, tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.jpg")
    for arguments, hint in (((), "name at least one picture"), (("a.jpg", "--CHECKPOINTS=none"), "train_unet.py")):
        done = run_script("predict.py", *arguments)
        assert done.returncode == 1 and hint in done.stderr and "Traceback" not in done.stderr
