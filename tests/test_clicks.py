"""Clicks: where they are put, how they are drawn, what one predictor promises, and the click protocol."""

import numpy as np
import pytest
import torch
from conftest import run_here
from PIL import Image

import evaluate
import predict
import train_pointclip
from experiments import clicks as click_experiment
from experiments.clicks import binary_iou, click_curves, number_of_clicks
from models.pointclip import PointCLIP
from utils.classes import PETS, VOID
from utils.errors import UserError
from utils.files import read_csv
from utils.inputs.clicks import next_click, random_click, thing_mask
from utils.inputs.layouts import list_samples
from utils.inputs.pictures import read_mask, read_sample, rng_of
from utils.rows.by_click import CLICKED, ByClick, PointPredictor
from utils.rows.row import Segmentation
from utils.training.simulated_clicks import simulate_clicks

CPU = torch.device("cpu")


def canvas(*boxes: tuple[int, int, int, int], size=(40, 60)) -> np.ndarray:
    """bool (H, W) with boxes (x, y, width, height) set."""
    mask = np.zeros(size, bool)
    for x, y, width, height in boxes:
        mask[y : y + height, x : x + width] = True
    return mask


# ---------------------------------------------------------------------------------------------- placing


def test_the_next_click_is_the_centre_of_the_largest_wrong_region():
    truth = canvas((4, 4, 9, 9), (30, 10, 21, 15)).astype(np.uint8)
    assert next_click(truth, canvas()) == (40, 17, 1)  # missed: the larger box, at its centre
    assert next_click(truth, canvas((30, 10, 21, 15))) == (8, 8, 1)  # then the other one
    too_much = canvas((4, 4, 9, 9), (30, 10, 21, 15), (0, 33, 60, 7))
    assert next_click(truth, too_much)[1:] == (36, 0)  # too much: a negative click, in the middle row of the strip
    assert next_click(truth, truth == 1) is None
    truth, predicted = canvas((10, 10, 10, 10)).astype(np.uint8), canvas((20, 10, 8, 10))  # they touch
    assert next_click(truth, predicted)[2] == 1 and next_click(truth, predicted)[0] < 20


def test_void_is_never_wrong_and_never_clicked():
    mask = np.full((20, 20), VOID, np.uint8)
    mask[5:9, 5:9] = 2
    truth = thing_mask(mask, 2)
    assert next_click(truth, np.ones((20, 20), bool)) is None
    for seed in range(50):
        (x, y, _), thing = random_click(mask, True, np.random.default_rng(seed))
        assert mask[y, x] == thing == 2
    assert random_click(mask, False, np.random.default_rng(0)) is None


def test_random_clicks_reach_the_whole_thing_and_follow_from_the_name_alone():
    mask = (canvas((10, 10, 6, 6)) * 1).astype(np.uint8)
    found = {random_click(mask, True, np.random.default_rng(seed))[0][:2] for seed in range(600)}
    assert found == {(x, y) for x in range(10, 16) for y in range(10, 16)}
    assert random_click(mask, True, rng_of("pug_1")) == random_click(mask, True, rng_of("pug_1"))
    assert len({random_click(mask, True, rng_of(f"pug_{i}"))[0] for i in range(20)}) > 5


# ------------------------------------------------------------------------------------------------ model


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = PointCLIP("tiny", widths=(8, 8, 8, 16), freeze_encoder=False)
    with torch.no_grad():
        for parameter in model.parameters():  # zero biases would hide what they do
            parameter.add_(torch.randn_like(parameter) * 0.05)
        # Random weights differ between versions of torch: shifted so that a mask is neither empty nor full.
        logits = model.eval()(torch.rand(1, 3, 64, 64) * 2 - 1, torch.tensor([[[0.2, 0.2, 1.0]]]))
        model.head[-1].bias[-1] -= logits.median()
    return model


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8)


def test_every_input_matters_everywhere_but_the_order_of_clicks_and_those_that_are_none(model):
    images, previous = torch.randn(2, 3, 128, 128), torch.rand(2, 1, 64, 64)
    one, two, none = [0.05, 0.05, 1.0], [0.7, 0.6, 0.0], [0.5, 0.5, -1.0]
    clicks, moved = (torch.tensor([[x, two]] * 2) for x in (one, [0.5, 0.5, 1.0]))
    with torch.no_grad():
        logits = model(images, clicks, previous)
        assert logits.shape == (2, 1, 64, 64)
        torch.testing.assert_close(model.decode(model.encode(images), clicks, previous), logits)
        for other in (model(images, moved, previous), model(images, clicks), model(-images, clicks, previous)):
            assert (other - logits).abs().max() > 1e-3
        assert ((model(images, moved, previous) - logits)[..., -8:, -8:].abs() > 1e-6).all()  # far from both clicks
        for same in ([one, two, none], [none, two, one]):
            torch.testing.assert_close(model(images, torch.tensor([same] * 2), previous), logits)


def predictor_of(model, image, **options):
    return PointPredictor(ByClick("", model, CPU, 64, (0.5,) * 3, (0.5,) * 3, PETS, **options), image)


def test_a_picture_is_encoded_once_and_undoing_a_click_gives_the_mask_before_it(model, image, monkeypatch):
    runs, encode = [], model.encode
    monkeypatch.setattr(model, "encode", lambda *args: runs.append(1) or encode(*args))
    predictor = predictor_of(model, image)
    clicks = [(3, 4, 1), (70, 40, 0), (0, 49, 0)]
    masks = [predictor.predict(clicks[:count])[0] for count in (1, 2, 3)]
    assert all(mask.shape == (50, 80) and mask.dtype == bool for mask in masks)
    for count in (2, 1):
        mask, score = predictor.predict(clicks[:count])
        assert np.array_equal(mask, masks[count - 1]) and 0 <= score <= 1
    assert len(runs) == 1
    fresh = predictor_of(model, image)  # the way there does not matter
    assert np.array_equal(fresh.predict(clicks)[0], masks[2])


def test_with_flip_a_mirrored_picture_has_the_mirrored_mask(model, image):
    def answers(flip):
        straight = predictor_of(model, image, flip=flip).predict([(10, 12, 1)])
        mask, score = predictor_of(model, image[:, ::-1], flip=flip).predict([(80 - 1 - 10, 12, 1)])
        return (straight[0] != mask[:, ::-1]).mean(), abs(straight[1] - score)

    (different, scores), (plain, _) = answers(True), answers(False)
    assert different < 0.02 < plain and scores < 0.01


class BrightIsTheThing(torch.nn.Module):
    """A stand-in for PointCLIP that keeps what it was given."""

    def __init__(self):
        super().__init__()
        self.seen, self.given = [], []

    def encode(self, images, tokens=None):
        self.seen.append(images)
        return [torch.nn.functional.avg_pool2d(images, 2)]

    def decode(self, features, clicks, previous=None):
        self.given.append((features[0], clicks, previous))
        return features[0][:, :1] * 10


@pytest.mark.parametrize("flip", [False, True])
def test_a_small_thing_is_looked_at_closer_where_all_clicks_are_about_it(flip):
    picture = np.zeros((240, 400, 3), np.uint8)
    picture[100:148, 300:360] = 255
    picture[100:148, 330:334] = 0  # a gap that the whole picture, squashed to 32 pixels, cannot show
    truth = picture[..., 0] > 0
    model = BrightIsTheThing()
    predictor = predictor_of(model, picture, flip=flip, zoom=True)

    def iou(mask):
        return (mask & truth).sum() / (mask | truth).sum()

    closer, _ = predictor.predict([(310, 120, 1)])
    two, _ = predictor.predict([(310, 120, 1), (332, 125, 0)])
    assert len(model.seen) == 2 and closer.shape == two.shape == truth.shape
    for feature, clicks, previous in model.given[1:]:  # in the window the clicks are on the same things
        for x, y, label in clicks[0].tolist():
            assert (feature[0, 0, int(y * 32), int(x * 32)] > 0) == bool(label)
        assert (previous is None) == (clicks.shape[1] == 1)
    far, _ = predictor.predict([(310, 120, 1), (5, 5, 0)])  # a click outside of the window: the whole picture again
    _, clicks, _ = model.given[-1]
    assert len(model.seen) == 2 and clicks[0, 1].tolist() == pytest.approx([5.5 / 400, 5.5 / 240, 0])
    assert np.array_equal(far, closer)  # where the click is right already it changes nothing
    whole, _ = predictor_of(model, picture, flip=flip).predict([(310, 120, 1)])
    assert iou(closer) > 0.95 > 0.9 > iou(whole), (iou(closer), iou(whole))
    for size in ((1, 1), (3, 5), (1, 50)):  # a window has a pixel at least
        tiny = np.zeros((*size, 3), np.uint8)
        tiny[0, 0] = 255
        assert predictor_of(model, tiny, zoom=True).predict([(0, 0, 1)])[0].shape == size


def test_a_further_click_is_seen_in_a_window_of_its_own():
    picture = np.zeros((240, 400, 3), np.uint8)
    picture[20:220, 20:380] = 255
    picture[60:180, 300:306] = 0  # a gap that the whole picture, squashed to 64 pixels, cannot show
    model = BrightIsTheThing()
    predictor = predictor_of(model, picture, zoom=True)
    one, _ = predictor.predict([(100, 100, 1)])
    two, _ = predictor.predict([(100, 100, 1), (302, 120, 0)])
    again, _ = predictor.predict([(100, 100, 1), (302, 120, 0)])
    assert one[120, 302] and not two[80:160, 303:306].any() and np.array_equal(two, again)
    assert len(model.seen) == 2 and np.array_equal(one[:, :200], two[:, :200])
    _, clicks, previous = model.given[-1]
    assert clicks[0, 0, 2] == 1 and clicks[0, 1].tolist() == pytest.approx([0.5, 0.5, 0], abs=0.02)
    assert previous.shape == (1, 1, 32, 32)  # the answer so far
    # The user's click on the thing is outside of the window: another one, on the thing, takes its place.
    assert clicks.shape[1] == 2 and abs(clicks[0, 0, 0] - 0.5) > 0.05


class Maps:
    """A row by class with a known map: (C, H, W), or a function of the picture."""

    def __init__(self, found):
        self.found, self.seen = found, []

    def class_map(self, image, dtype=torch.float32):
        self.seen.append(image)
        return (self.found(image) if callable(self.found) else self.found).to(dtype)


def test_the_class_under_the_first_click_is_averaged_with_the_first_answer_alone():
    picture = np.zeros((240, 400, 3), np.uint8)
    picture[20:220, 20:200] = 255
    maps = torch.zeros(3, 240, 400)
    maps[1, :, :300] = 1  # the class under the click goes on where the clicks' own model sees nothing
    maps[2, :, 300:] = 1

    def opened(**options):
        row = ByClick("", BrightIsTheThing(), CPU, 64, (0.5,) * 3, (0.5,) * 3, PETS, **options)
        segment = row.open(picture)
        return lambda *clicks: segment(clicks, "").ids > 0

    certain = Maps(maps)
    alone, asked = opened(zoom=True), opened(zoom=True, class_row=certain)
    bright, both = alone((100, 100, 1)), asked((100, 100, 1))
    assert both[:, :299].all() and not both[:, 301:].any() and not bright[:, 210:].any()
    assert len(certain.seen) == 1
    assert np.array_equal(opened(class_row=certain)((100, 100, 1)), opened()((100, 100, 1)))
    assert len(certain.seen) == 1  # without zoom no map is asked for
    # What the map added goes with one click; and a first click beside the thing names no class.
    for clicks in ([(100, 100, 1), (250, 100, 0)], [(390, 230, 0), (100, 100, 1)]):
        assert np.array_equal(asked(*clicks), alone(*clicks))


@pytest.mark.parametrize(
    ("clicks", "message"),
    [
        ([(80, 3, 1)], "outside of the picture of 80 x 50"),
        ([(1, 3, 0)], "at least one click"),
        ([(1, 3, 2)], "label 2"),
    ],
)
def test_clicks_that_make_no_sense_are_refused(model, image, clicks, message):
    with pytest.raises(UserError, match=message):
        predictor_of(model, image).predict(clicks)


# --------------------------------------------------------------------------------------------- training


def test_simulated_clicks_are_on_the_thing_first_and_then_on_the_models_errors():
    images, masks = torch.rand(40, 3, 64, 64), torch.zeros(40, 64, 64, dtype=torch.uint8)
    masks[:, 16:48, 16:48] = 1
    masks[:, :4] = VOID
    asked = []

    def predict(indices, clicks, previous):  # takes the left half for the thing, whatever is clicked
        asked.append((clicks.clone(), previous.clone()))
        return torch.where(torch.arange(32) < 16, 5.0, -5.0).expand(len(indices), 1, 32, 32)

    def simulate(edited):
        return simulate_clicks(predict, images, masks, torch.Generator().manual_seed(0), 4, edited)

    truths, clicks, previous = simulate(0.0)
    assert all(torch.equal(a, b) for a, b in zip((truths, clicks, previous), simulate(0.0), strict=True))
    animal = truths[:, 32, 32] == 1
    whole = torch.stack([torch.from_numpy(thing_mask(masks[0].numpy(), thing)) for thing in (0, 1)])
    assert torch.equal(truths, whole[animal.long()].long()) and clicks.shape == (40, 5, 3) and 5 < animal.sum() < 35
    further = (clicks[:, 1:, 2] >= 0).sum(1)
    assert set(further.tolist()) == {0, 1, 2, 3, 4} and 10 < (further == 0).sum() < 30
    assert (previous[further == 0] == 0).all() and (previous[further > 0][..., :16] > 0.9).all()
    assert (asked[0][1] == 0).all() and (asked[1][1] != 0).all()  # nothing is known before the first answer
    edited_truths, edited_clicks, _ = simulate(1.0)
    changed = (edited_truths != whole[(edited_truths[:, 32, 32] == 1).long()]).any(2).any(1)
    further = (edited_clicks[:, 1:, 2] >= 0).sum(1)
    assert changed.sum() > 5 and not changed[further == 0].any()  # what takes one click is all of its class
    for truth, given in zip([*truths, *edited_truths], [*clicks, *edited_clicks], strict=True):
        for number, (x, y, label) in enumerate(given[given[:, 2] >= 0].tolist()):
            column, row = int(x * 64), int(y * 64)
            assert truth[row, column] == label and (number or label)
            assert not number or label != (column < 32)  # where the model was wrong


def test_pictures_that_are_void_or_hold_one_thing_only_can_be_trained_on():
    masks = torch.full((6, 8, 8), VOID, dtype=torch.uint8)
    masks[3:] = 0

    def predict(indices, clicks, previous):
        return previous

    for corrections in (0, 3):
        generator = torch.Generator().manual_seed(0)
        truths, clicks, _ = simulate_clicks(predict, torch.rand(6, 3, 8, 8), masks, generator, corrections, 1.0)
        assert (truths[:3] == VOID).all() and (truths[3:] == 1).any(2).any(1).all()
        assert clicks[:, 0, 2].tolist() == [-1, -1, -1, 1, 1, 1]


# --------------------------------------------------------------------------------------------- protocol


def test_iou_and_number_of_clicks_by_hand():
    truth = np.array([[1, 1, 0, 0], [1, VOID, VOID, 0]], np.uint8)
    predicted = np.array([[1, 0, 1, 0], [1, 1, 0, 0]], bool)
    assert binary_iou(truth, predicted) == 2 / 4
    ious = torch.zeros(4, 20, dtype=torch.float64)
    ious[0] = 0.95  # one click
    ious[1, 2:] = 0.9  # three
    ious[3] = torch.nan  # no animal: not counted
    assert number_of_clicks(ious, 0.9) == (1 + 3 + 20) / 3
    assert number_of_clicks(ious, 0.91) == (1 + 20 + 20) / 3


@pytest.fixture(scope="module")
def truths(oxford_root):
    """Picture, as bytes -> its mask, of the test split."""
    return {image.tobytes(): mask for image, mask in map(read_sample, list_samples(oxford_root, "test"))}


class Knows(ByClick):
    """Answers with answer(truth, clicks); it counts on the CPU, for mps has no float64."""

    def __init__(self, truths, answer):
        super().__init__("", torch.nn.Identity(), torch.device("mps"), 32, (), (), PETS, zoom=True)
        self.truths, self.answer = truths, answer

    def open(self, image):
        mask = self.truths[image.tobytes()]
        return lambda clicks, text: Segmentation(self.answer(mask, clicks).astype(np.uint8), CLICKED)


def test_a_perfect_model_scores_one_and_both_clicks_count(oxford_root, truths):
    def answer(mask, clicks):
        ((x, y, label),) = clicks
        assert label == 1 and mask[y, x] != VOID
        return mask == mask[y, x]

    samples, seen = list_samples(oxford_root, "test"), []
    confusions = Knows(truths, answer).score(samples, on_prediction=lambda index, ids, part: seen.append((index, part)))
    known = [int((read_mask(sample) != VOID).sum()) for sample in samples]
    assert confusions.dtype == torch.int64 and confusions.sum((1, 2)).tolist() == [2 * pixels for pixels in known]
    assert (confusions.sum(0) - torch.diag(confusions.sum(0).diagonal())).sum() == 0
    assert seen == [(index, part) for index in range(8) for part in ("animal", "background")]


def test_further_clicks_are_counted_after_the_last_one(oxford_root, truths):
    def answer(mask, clicks):  # nothing until it is told twice where the thing is
        clicked.append(len(clicks))
        assert {label for *_, label in clicks} == {1}  # nothing is ever superfluous
        x, y, _ = clicks[-1]
        found = mask == mask[y, x]
        return found if len(clicks) > 2 else np.zeros_like(found)

    clicked, samples = [], list_samples(oxford_root, "test")
    one, two, three = (Knows(truths, answer).score(samples, clicks=clicks).sum(0) for clicks in (1, 2, 3))
    assert torch.equal(one, two) and one[1, 1] == 0 and one[1, 0] > 0
    assert three[1, 0] == three[0, 1] == 0 and three[1, 1] == one[1, 0]
    assert max(clicked) == 3


def test_curves_follow_the_corrections_and_end_when_nothing_is_wrong(oxford_root, truths):
    def answer(mask, clicks):  # learns the truth of a 24 pixel block per click
        asked.append(len(clicks))
        thing, found = mask == mask[mask != VOID].max(), np.zeros(mask.shape, bool)
        for x, y, _ in clicks:
            block = slice(max(y - 12, 0), y + 12), slice(max(x - 12, 0), x + 12)
            found[block] = thing[block]
        return found

    row, samples, asked = Knows(truths, answer), list_samples(oxford_root, "test"), []
    ious = click_curves(row.open, samples, True, "")
    assert ious.shape == (8, 20) and (ious[:, 1:] >= ious[:, :-1]).all()
    assert (ious[:, 0] < 1).any() and (ious[:, -1] == 1).all()
    assert len(asked) < 8 * 10  # a picture that is right gets no further click
    assert not torch.equal(ious, click_curves(row.open, samples, False, ""))


# ---------------------------------------------------------------------------------------------- scripts

SMALL = ("--IMAGE_SIZE=64", "--VIEW_SIZE=64", "--WIDTHS=8,8,16,32", "--BATCH_SIZE=7")


@pytest.fixture(scope="module")
def trained(oxford_root, tmp_path_factory):
    """A folder with pointclip/best.safetensors, trained until clicks work on drawn blobs."""
    folder = tmp_path_factory.mktemp("point")
    options = (
        "--ENCODER=tiny",
        *SMALL,
        "--EPOCHS=30",
        "--EMA_DECAY=0.9",
        "--LEARNING_RATE=0.003",
        "--VALIDATE_EVERY=10",
    )
    easy = ("--SCALE=1,1", "--ROTATION=0.0", "--COLOUR=0.0", "--DROPOUT=0.0", "--PASTE=0")
    run_here(train_pointclip, f"--DATA_ROOT={oxford_root}", f"--CHECKPOINTS={folder}", *options, *easy)
    return folder


@pytest.mark.slow
def test_one_click_finds_the_thing_and_the_table_is_that_of_the_saved_masks(
    oxford_root, trained, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    options = (f"--DATA_ROOT={oxford_root}", f"--CHECKPOINTS={trained}")
    run_here(evaluate, *options, "--ROWS=PointCLIP", "--FLIP=True", "--SAVE_MASKS=masks")
    lines = read_csv("results/results.csv")
    assert [(line["model"], line["flip"]) for line in lines] == [("PointCLIP", "0"), ("PointCLIP", "1")]
    assert float(lines[0]["miou"]) > 0.7 and lines[0]["iou_cat"] == "" and lines[0]["images"] == "8"
    union, overlap = np.zeros(2), np.zeros(2)
    for sample in list_samples(oxford_root, "test"):
        mask = read_mask(sample)
        for name in ("animal", "background"):
            thing = np.array(Image.open(tmp_path / "masks" / "PointCLIP" / name / f"{sample.name}.png"))[mask != VOID]
            truth = (mask[mask != VOID] != 0) == (name == "animal")
            for value in (0, 1):
                overlap[value] += ((thing == value) & (truth == value)).sum()
                union[value] += ((thing == value) | (truth == value)).sum()
    assert lines[0]["miou"] == f"{(overlap / union).mean():.4f}"
    run_here(click_experiment, *options, "--ROWS=PointCLIP,everything", "--PICTURES=5")
    curves = read_csv("results/clicks.csv")
    assert list(curves[0]) == "model,data,split,zoom,first_click,clicks,miou_animal,noc85,noc90,images".split(",")
    assert {line["images"] for line in curves} == {"5"}
    iou = {(line["model"], line["first_click"], line["clicks"]): float(line["miou_animal"]) for line in curves}
    assert iou["PointCLIP", "central", "1"] > 1.2 * iou["everything", "central", "1"]
    assert iou["everything", "central", "1"] == iou["everything", "random", "10"]
    assert {key[2] for key in iou} == {"1", "2", "3", "5", "10"}
    assert (tmp_path / "images" / "clicks.png").is_file() and (tmp_path / "predictions" / "examples.png").is_file()
    with pytest.raises(UserError, match="ROWS: CLIP look-up cannot be scored: .*train_clip.py"):
        run_here(click_experiment, *options, "--ROWS=CLIP look-up")


@pytest.mark.slow
def test_predict_by_clicks_marks_what_is_under_them(oxford_root, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sample = list_samples(oxford_root, "test")[0]
    mask = read_mask(sample)
    x, y, _ = next_click(thing_mask(mask, 1), np.zeros(mask.shape, bool))
    picture, folder = str(sample.image), f"--CHECKPOINTS={trained}"
    run_here(predict, picture, f"--POINT={x},{y}", "--POINT=1,1,0", folder)
    predicted = np.array(Image.open(tmp_path / "predictions" / "masks" / f"{sample.name}.png"))
    assert predicted.shape == mask.shape and predicted[y, x] == 1 and predicted[1, 1] == 0
    assert binary_iou(thing_mask(mask, 1), predicted == 1) > 0.6
    assert (tmp_path / "predictions" / "overlays" / f"{sample.name}.png").is_file()
    for options, message in (
        (["--POINT=a,b"], "write x,y in pixels"),
        (["--POINT=1,2,1,0"], "write x,y in pixels"),
        (["--POINT=1,1", "--TEXT=a cat"], "give one of them"),
        (["--POINT=1,1", "--CHECKPOINTS=none"], "train_pointclip.py"),
    ):
        with pytest.raises(UserError, match=message):
            run_here(predict, picture, folder, *options)
    for point, message in (("999,0", "outside of the picture"), ("1,1,0", "at least one click")):
        run_here(predict, picture, folder, f"--POINT={point}")
        assert message in capsys.readouterr().err
