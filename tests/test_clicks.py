"""Clicks: where they are put, how they are drawn, what one predictor promises, and the click protocol."""

import csv

import numpy as np
import pytest
import torch
import warm
from conftest import REPOSITORY, run_here, script_environment
from PIL import Image
from scipy import ndimage

import train_clip
from models.pointclip import PointCLIP, draw_clicks, mean_at
from utils import checkpoint
from utils.classes import PETS, VOID
from utils.errors import UserError
from utils.inputs.clicks import next_click, random_click, thing_mask, to_tensor
from utils.inputs.dataset import SegmentationDataset
from utils.inputs.layouts import list_samples
from utils.inputs.pictures import read_mask, read_sample, rng_of
from utils.scoring.by_class import squash
from utils.scoring.by_click import CLICKED, ByClick
from utils.scoring.click_baselines import baselines, disks_of, everything
from utils.scoring.click_curves import binary_iou, click_curves, number_of_clicks
from utils.scoring.click_predictor import PointPredictor
from utils.scoring.row import Row, Segmentation
from utils.training.simulated_clicks import edit_thing, simulate_clicks

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


def test_a_missed_and_a_superfluous_region_that_touch_are_two():
    truth = canvas((10, 10, 10, 10)).astype(np.uint8)
    predicted = canvas((20, 10, 8, 10))
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


def test_a_simulated_person_clicks_in_the_inner_half_of_the_region():
    truth = canvas((10, 10, 21, 21)).astype(np.uint8)
    distance = ndimage.distance_transform_edt(truth)
    clicks = {next_click(truth, canvas(), np.random.default_rng(seed))[:2] for seed in range(200)}
    assert len(clicks) > 50 and all(distance[y, x] >= distance.max() / 2 for x, y in clicks)


# ---------------------------------------------------------------------------------------------- drawing


@pytest.mark.parametrize("shape", ["disk", "gaussian"])
def test_clicks_are_drawn_where_they_are_and_in_the_map_of_their_label(shape):
    clicks = to_tensor([(12, 3, 1), (40, 30, 0)], (40, 60))[None]
    clicks = torch.cat([clicks, torch.tensor([[[0.5, 0.5, -1.0]]])], 1)  # no click
    maps = draw_clicks(clicks, (40, 60), shape, 0.05)
    assert maps.shape == (1, 2, 40, 60)
    for channel, (x, y) in enumerate(((12, 3), (40, 30))):
        assert divmod(maps[0, channel].argmax().item(), 60) == (y, x) or shape == "disk"
        assert maps[0, channel, y, x] == 1
        rows, columns = (maps[0, channel] > 0.7).nonzero().unbind(1)
        assert rows.float().mean().round() == y and columns.float().mean().round() == x
    assert maps[0, :, 20, 30].max() < 0.01
    assert draw_clicks(clicks, (4, 4), shape, 0.001)[0].amax((1, 2)).min() > 0.3  # never less than a pixel


def test_features_are_those_at_the_clicks_of_a_label():
    tokens = torch.randn(1, 5, 4, 6)  # of 10 x 10 pixels each
    centre, other = to_tensor([(25, 15, 1), (54, 35, 1)], (40, 60)) - torch.tensor([0.5 / 60, 0.5 / 40, 0])
    torch.testing.assert_close(mean_at(tokens, centre[None, None], 1), tokens[:, :, 1, 2])
    between = (centre + torch.tensor([5 / 60, 0, 0]))[None, None]
    torch.testing.assert_close(mean_at(tokens, between, 1), (tokens[:, :, 1, 2] + tokens[:, :, 1, 3]) / 2)
    both = torch.stack([centre, other])[None]
    at_other = mean_at(tokens, other[None, None], 1)
    torch.testing.assert_close(mean_at(tokens, both, 1), (tokens[:, :, 1, 2] + at_other) / 2)
    assert mean_at(tokens, both, 0).abs().max() == 0


# ------------------------------------------------------------------------------------------------ model


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = PointCLIP("tiny", widths=(8, 8, 8, 16), freeze_encoder=False)
    with torch.no_grad():
        for parameter in model.parameters():  # zero biases would hide what they do
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


@pytest.fixture
def predictor(model):
    return PointPredictor(model, 64, (0.5,) * 3, (0.5,) * 3, CPU)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8)


def test_forward_is_encode_and_decode_and_every_input_matters(model):
    images, clicks = torch.randn(2, 3, 64, 64), torch.tensor([[[0.3, 0.4, 1.0]], [[0.8, 0.2, 1.0]]])
    previous = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        logits = model(images, clicks, previous)
        assert logits.shape == (2, 1, 32, 32)
        torch.testing.assert_close(model.decode(model.encode(images), clicks, previous), logits)
        for other in (model(images, clicks.flip(0), previous), model(images, clicks), model(-images, clicks, previous)):
            assert (other - logits).abs().max() > 1e-3


def test_a_click_far_away_is_felt_everywhere(model):
    images = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        features = model.encode(images)
        here, there = (model.decode(features, torch.tensor([[[x, x, 1.0]]])) for x in (0.05, 0.5))
    assert ((here - there)[0, 0, -8:, -8:].abs() > 1e-6).all()


def test_clicks_that_are_no_clicks_and_their_order_change_nothing(model):
    images = torch.randn(1, 3, 64, 64)
    one, two, none = [0.2, 0.3, 1.0], [0.7, 0.6, 0.0], [0.5, 0.5, -1.0]
    with torch.no_grad():
        expected = model(images, torch.tensor([[one, two]]))
        for clicks in ([[one, two, none]], [[none, two, one]]):
            torch.testing.assert_close(model(images, torch.tensor(clicks)), expected)


def test_the_picture_is_encoded_once_and_a_mask_has_its_size(predictor, image, monkeypatch):
    runs = []
    encode = predictor.model.encode
    monkeypatch.setattr(predictor.model, "encode", lambda *args: runs.append(1) or encode(*args))
    predictor.set_image(image)
    for points in ([(3, 4)], [(3, 4), (70, 40)], [(3, 4), (70, 40), (0, 49)]):
        mask, score = predictor.predict(points, [1] + [0] * (len(points) - 1))
        assert mask.shape == (50, 80) and mask.dtype == bool and 0 <= score <= 1
    assert len(runs) == 1


def test_undoing_a_click_gives_the_mask_before_it_and_the_way_there_does_not_matter(predictor, model, image):
    predictor.set_image(image)
    first, _ = predictor.predict([(10, 10)], [1])
    both, _ = predictor.predict([(10, 10), (60, 30)], [1, 0])
    assert np.array_equal(predictor.predict([(10, 10)], [1])[0], first)
    fresh = PointPredictor(model, 64, (0.5,) * 3, (0.5,) * 3, CPU)
    fresh.set_image(image)
    assert np.array_equal(fresh.predict([(10, 10), (60, 30)], [1, 0])[0], both)


def test_flip_is_the_mean_over_the_picture_and_its_mirror_image(model, predictor, image):
    flipped = PointPredictor(model, 64, (0.5,) * 3, (0.5,) * 3, CPU, flip=True)
    clicks = ((10, 12, 1),)
    flipped.set_image(image)
    predictor.set_image(image)
    plain = predictor._logits(clicks, predictor.whole)
    predictor.set_image(image[:, ::-1])
    mirrored = predictor._logits(((80 - 1 - 10, 12, 1),), predictor.whole)
    torch.testing.assert_close(
        flipped._logits(clicks, flipped.whole), (plain + mirrored.flip(-1)) / 2, atol=2e-3, rtol=1e-3
    )


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
    predictor = PointPredictor(model, 64, (0.5,) * 3, (0.5,) * 3, CPU, flip, zoom=True)

    def iou(mask):
        return (mask & truth).sum() / (mask | truth).sum()

    predictor.set_image(picture)
    closer, _ = predictor.predict([(310, 120)], [1])
    two, _ = predictor.predict([(310, 120), (332, 125)], [1, 0])
    assert len(model.seen) == 2 and closer.shape == two.shape == truth.shape
    for feature, clicks, previous in model.given[1:]:  # in the window the clicks are on the same things
        for x, y, label in clicks[0].tolist():
            assert (feature[0, 0, int(y * 32), int(x * 32)] > 0) == bool(label)
        assert (previous is None) == (clicks.shape[1] == 1)
    far, _ = predictor.predict([(310, 120), (5, 5)], [1, 0])  # a click outside of the window: the whole picture again
    _, clicks, _ = model.given[-1]
    assert len(model.seen) == 2 and clicks[0, 1].tolist() == pytest.approx([5.5 / 400, 5.5 / 240, 0])
    assert np.array_equal(far, closer)  # where the click is right already it changes nothing
    once = PointPredictor(model, 64, (0.5,) * 3, (0.5,) * 3, CPU, flip)
    once.set_tensors(squash(picture, 64, CPU), picture.shape[:2])
    whole, _ = once.predict([(310, 120)], [1])
    once.set_image(picture)
    assert np.array_equal(once.predict([(310, 120)], [1])[0], whole)
    with pytest.raises(ValueError, match="zoom"):
        predictor.set_tensors(squash(picture, 64, CPU), picture.shape[:2])
    assert iou(closer) > 0.95 > 0.9 > iou(whole), (iou(closer), iou(whole))

    seen = len(model.seen)
    picture[20:220, 20:380] = 255
    predictor.set_image(picture)
    predictor.predict([(310, 120)], [1])
    assert len(model.seen) == seen + 1  # large things need one look
    predictor.set_image(np.zeros((3, 5, 3), np.uint8))
    assert not predictor.predict([(1, 1)], [1])[0].any()
    for size in ((1, 1), (2, 2), (3, 3), (1, 50)):  # a window has a pixel at least
        tiny = np.zeros((*size, 3), np.uint8)
        tiny[0, 0] = 255
        predictor.set_image(tiny)
        assert predictor.predict([(0, 0)], [1])[0].shape == size


def test_a_further_click_is_seen_in_a_window_of_its_own():
    picture = np.zeros((240, 400, 3), np.uint8)
    picture[20:220, 20:380] = 255
    picture[60:180, 300:306] = 0  # a gap that the whole picture, squashed to 64 pixels, cannot show
    model = BrightIsTheThing()
    predictor = PointPredictor(model, 64, (0.5,) * 3, (0.5,) * 3, CPU, zoom=True)
    predictor.set_image(picture)
    one, _ = predictor.predict([(100, 100)], [1])
    two, _ = predictor.predict([(100, 100), (302, 120)], [1, 0])
    again, _ = predictor.predict([(100, 100), (302, 120)], [1, 0])
    assert one[120, 302] and not two[80:160, 303:306].any() and np.array_equal(two, again)
    assert len(model.seen) == 2 and np.array_equal(one[:, :200], two[:, :200])
    _, clicks, previous = model.given[-1]
    assert clicks[0, 0, 2] == 1 and clicks[0, 1].tolist() == pytest.approx([0.5, 0.5, 0], abs=0.02)
    assert previous.shape == (1, 1, 32, 32)  # the answer so far
    # The user's click on the thing is outside of the window: another one, on the thing, takes its place.
    assert clicks.shape[1] == 2 and abs(clicks[0, 0, 0] - 0.5) > 0.05


class ForgetsTheRest(BrightIsTheThing):
    """With a second click it sees the thing where it is dim too, and forgets the left of the picture."""

    def decode(self, features, clicks, previous=None):
        logits = super().decode(features, clicks, previous)
        if previous is not None:
            logits = torch.where(features[0][:, :1] > -0.5, 10.0, logits)
            logits[..., :8] = -10
        return logits


def test_a_further_click_changes_nothing_but_its_region():
    picture = np.zeros((320, 320, 3), np.uint8)
    picture[20:300, 20:100] = 255
    picture[20:300, 120:300] = 100  # dim
    predictor = PointPredictor(ForgetsTheRest(), 64, (0.5,) * 3, (0.5,) * 3, CPU, zoom=True)
    predictor.set_image(picture)
    one, _ = predictor.predict([(60, 60)], [1])
    two, _ = predictor.predict([(60, 60), (200, 160)], [1, 1])
    assert not one[160, 200] and two[30:290, 130:290].all() and two[30:290, 30:90].all()
    once = PointPredictor(ForgetsTheRest(), 64, (0.5,) * 3, (0.5,) * 3, CPU)
    once.set_image(picture)
    assert not once.predict([(60, 60), (200, 160)], [1, 1])[0][30:290, 30:70].any()
    picture[20:300, 100:] = 0
    picture[20:300, 100:150] = 255
    picture[130:190, 160:220] = 100  # small: seen in a window of its own, whose left is bright
    model = ForgetsTheRest()
    predictor = PointPredictor(model, 64, (0.5,) * 3, (0.5,) * 3, CPU, zoom=True)
    predictor.set_image(picture)
    predictor.predict([(60, 60)], [1])
    two, _ = predictor.predict([(60, 60), (190, 160)], [1, 1])
    assert len(model.seen) == 2 and two[140:180, 170:210].all() and two[30:290, 30:140].all()
    predictor.set_image(np.full((320, 320, 3), 255, np.uint8))
    one, _ = predictor.predict([(300, 60)], [1])
    stays, _ = predictor.predict([(300, 60), (300, 300)], [1, 0])  # the model does not believe the click
    assert np.array_equal(stays, one)


def test_a_click_in_the_middle_of_a_part_removes_it_unless_a_click_on_the_thing_is_there_too():
    picture = np.zeros((240, 400, 3), np.uint8)
    picture[40:200, 20:160] = 255
    picture[40:200, 240:380] = 255
    model = BrightIsTheThing()  # which heeds no click
    predictor = PointPredictor(model, 64, (0.5,) * 3, (0.5,) * 3, CPU, zoom=True)
    predictor.set_image(picture)
    on_left, on_right = (60, 100), (300, 100)
    one, _ = predictor.predict([on_left], [1])
    calls = len(model.given)
    two, _ = predictor.predict([on_left, on_right], [1, 0])
    assert one[100, 300] and not two[:, 200:].any() and np.array_equal(two[:, :200], one[:, :200])
    assert len(model.given) == calls  # needs no answer of the model
    same_part, beside, edge = ((on_left, place) for place in ((120, 100), (5, 5), (300, 60)))
    for points, labels in ((same_part, [1, 0]), (beside, [1, 0]), (edge, [1, 0]), ((*edge, on_right), [1, 1, 0])):
        kept, _ = predictor.predict(points, labels)  # the model's say, which keeps both parts
        assert kept[50:190, 30:150].all() and kept[50:190, 250:370].all() and not kept[:, 170:230].any()


def test_a_class_map_that_is_sure_has_a_say_in_the_first_answer_alone():
    picture = np.zeros((240, 400, 3), np.uint8)
    picture[20:220, 20:200] = 255
    certain = torch.zeros(3, 240, 400)
    certain[1, :, :300] = 1  # the class under the click goes on where the clicks' own model sees nothing
    certain[2, :, 300:] = 1
    probability = torch.full((3, 240, 400), 1 / 3)  # under the click; half of the picture is background
    probability[0, :, 200:], probability[1:, :, 200:] = 2 / 3, 1 / 6

    def predictor(class_map, zoom=True):
        made = PointPredictor(BrightIsTheThing(), 64, (0.5,) * 3, (0.5,) * 3, CPU, zoom=zoom, class_map=class_map)
        made.set_image(picture)
        return made

    def refuse(image, dtype):
        raise AssertionError("nobody asked for a class map")

    alone, asked = predictor(None), predictor(lambda image, dtype=torch.float32: certain.to(dtype))
    bright, both = alone.predict([(100, 100)], [1])[0], asked.predict([(100, 100)], [1])[0]
    assert both[:, :299].all() and not both[:, 301:].any() and not bright[:, 210:].any()
    probabilities = asked._answer(((100, 100, 1),)).float()
    torch.testing.assert_close(probabilities[100, 100], torch.tensor(1.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(probabilities[100, 290], torch.tensor(0.8), atol=1e-3, rtol=0)
    unsure = lambda image, dtype=torch.float32: probability.to(dtype)  # noqa: E731
    for class_map, zoom in ((unsure, True), (refuse, False)):  # not asked without zoom
        assert np.array_equal(predictor(class_map, zoom).predict([(100, 100)], [1])[0], bright)
    further, _ = asked.predict([(100, 100), (250, 100)], [1, 0])  # what the map added goes with one click
    _, _, previous = asked.model.given[-1]
    assert previous[0, 0, 13, 20] > 0.5 > previous[0, 0, 13, 30]  # the model has seen it
    assert np.array_equal(further, alone.predict([(100, 100), (250, 100)], [1, 0])[0])
    later, _ = asked.predict([(390, 230), (100, 100)], [0, 1])  # a click beside the thing names no class
    assert np.array_equal(later, alone.predict([(390, 230), (100, 100)], [0, 1])[0])


def test_a_map_that_is_not_sure_where_a_click_is_looks_at_a_window_around_it():
    seen = []

    def class_map(image, dtype=torch.float32):
        seen.append(image)
        whole = image.shape[:2] == (200, 400)
        background, cat, dog = (0.6, 0.3, 0.1) if whole else (0.0, 0.0, 1.0)
        return torch.tensor([background, cat, dog], dtype=dtype)[:, None, None].expand(3, *image.shape[:2])

    picture = np.arange(200 * 400 * 3, dtype=np.uint32).astype(np.uint8).reshape(200, 400, 3)
    predictor = PointPredictor(BrightIsTheThing(), 64, (0.5,) * 3, (0.5,) * 3, CPU, zoom=True, class_map=class_map)
    predictor.set_image(picture)
    under = predictor._class_under(300, 30)
    background = 0.3 * 0.4 / (0.3 * 0.4 + 0.7 * 0.6)  # the mean of both looks; .6 of the picture is background
    expected = torch.tensor([background, 0.75 * (1 - background), 0.25 * (1 - background)])  # which thing: as at first
    torch.testing.assert_close(under, expected, atol=1e-3, rtol=0)
    assert len(seen) == 2 and np.array_equal(seen[1], picture[:80, 220:380])  # .4 of the picture, not beyond its edge
    predictor.predict([(300, 30)], [1])
    predictor.predict([(300, 30), (10, 10)], [1, 0])
    assert len(seen) == 3  # once per first click
    predictor.classes = torch.tensor([0.04, 0.5, 0.46])[:, None, None].expand(3, 200, 400).clone()
    predictor.classes[0, :, :200] = 0.96  # half of the picture is background
    torch.testing.assert_close(predictor._class_under(300, 30), torch.tensor([0.04, 0.5, 0.46]))
    assert len(seen) == 3  # a thing surely, though not surely which
    predictor.classes[0] = 1.0  # no thing anywhere, and none under the click
    torch.testing.assert_close(predictor._class_under(300, 30), torch.tensor([1.0, 0, 0]))


@pytest.mark.parametrize(
    ("points", "labels", "message"),
    [
        ([(80, 3)], [1], "outside of the picture of 80 x 50"),
        ([(-1, 3)], [1], "outside"),
        ([(1, 3)], [0], "at least one click"),
        ([], [], "at least one click"),
        ([(1, 3)], [2], "label 2"),
    ],
)
def test_clicks_that_make_no_sense_are_refused(predictor, image, points, labels, message):
    with pytest.raises(UserError, match="set_image"):
        predictor.predict(points, labels)
    predictor.set_image(image)
    with pytest.raises(UserError, match=message):
        predictor.predict(points, labels)


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


def test_an_edited_thing_differs_by_one_region_of_like_pixels_and_keeps_its_click():
    picture = torch.full((3, 64, 96), -1.0)
    picture[:, :, 48:] = 1.0  # dark and bright
    truth = canvas((16, 16, 64, 32), size=(64, 96)).astype(np.uint8)
    truth[:16] = VOID
    rng = np.random.default_rng(0)
    left, joined, one_sided = 0, 0, 0
    for _ in range(300):
        click = (*rng.integers((16, 16), (80, 48)), 1)
        edited = edit_thing(truth, picture, click, rng)
        changed = edited != truth
        left, joined = left + (changed & (truth == 1)).any(), joined + (changed & (truth == 0)).any()
        assert edited[click[1], click[0]] == 1 and ((edited == VOID) == (truth == VOID)).all()
        assert not ((changed & (truth == 1)).any() and (changed & (truth == 0)).any())
        assert ((edited == 1) & (truth == 1)).sum() >= (truth == 1).sum() / 2
        one_sided += changed.any() and not (changed[:, :44].any() and changed[:, 52:].any())
    assert left > 30 and joined > 30
    assert one_sided > 0.7 * (left + joined)  # most regions end where dark meets bright
    void = np.full((8, 8), VOID, np.uint8)
    assert (edit_thing(void, picture[:, :8, :8], (0, 0, -1), rng) == VOID).all()


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


def test_iou_by_hand_leaves_void_out():
    truth = np.array([[1, 1, 0, 0], [1, VOID, VOID, 0]], np.uint8)
    predicted = np.array([[1, 0, 1, 0], [1, 1, 0, 0]], bool)
    assert binary_iou(truth, predicted) == 2 / 4


def test_number_of_clicks_by_hand():
    ious = torch.zeros(4, 20, dtype=torch.float64)
    ious[0] = 0.95  # one click
    ious[1, 2:] = 0.9  # three
    ious[3] = torch.nan  # no animal: not counted
    assert number_of_clicks(ious, 0.9) == (1 + 3 + 20) / 3
    assert number_of_clicks(ious, 0.91) == (1 + 20 + 20) / 3


def test_the_baselines_do_what_their_names_say():
    picture = np.zeros((40, 60, 3), np.uint8)
    assert everything(picture)([(3, 3, 1)]).all()
    disk = disks_of((40, 60), 0.2)([(30, 20, 1)])
    assert disk.mean() == pytest.approx(0.2, abs=0.01) and disk[20, 30] and not disk[2, 2]
    cut = disks_of((40, 60), 0.2)([(30, 20, 1), (36, 20, 0)])
    assert cut[20, 30] and not cut[20, 36] and cut.sum() < disk.sum()
    classes = np.zeros((40, 60), np.uint8)
    classes[:20], classes[30:] = 1, 2


class ClassMap(Row):
    """A row by class that finds the upper half to be a cat."""

    def open(self, image, flip=False):
        ids = np.zeros(image.shape[:2], np.uint8)
        ids[: len(ids) // 2] = 1
        return lambda clicks, text: Segmentation(ids, self.classes)


def test_baselines_have_the_face_of_a_row_by_click(oxford_root):
    by_class = ClassMap("UNET", torch.nn.Identity(), CPU, 32, (), (), PETS)
    look_up, disk, everything = baselines([by_class], oxford_root, PETS, CPU)
    assert [row.name for row in (look_up, disk, everything)] == ["UNET look-up", "disk", "everything"]
    assert {row.prompt for row in (look_up, disk, everything)} == {"click"}
    picture = np.zeros((40, 60, 3), np.uint8)
    segment = look_up.open(picture)
    for clicks in ([(5, 5, 1)], [(5, 5, 1), (5, 35, 1), (5, 5, 0)]):  # the first one decides
        found = segment(clicks, "")
        assert found.classes == CLICKED and np.array_equal(found.ids.any(1), np.arange(40) < 20)
    masks = [read_mask(sample) for sample in list_samples(oxford_root, "train")]
    share = np.mean([(mask % VOID != 0).sum() / (mask != VOID).sum() for mask in masks])
    assert disk.segment(picture, [(30, 20, 1)]).ids.mean() == pytest.approx(share, abs=0.02)
    dataset = SegmentationDataset(oxford_root, "test", 32)
    confusions = everything.score(dataset)
    assert confusions.shape == (8, 2, 2) and confusions[:, :, 0].sum() == 0  # nothing is the rest


class Oracle(ByClick):
    """Answers with the class under the first click, in the truth: what a perfect model would do."""

    def __init__(self):
        super().__init__("", torch.nn.Identity(), CPU, 32, (), (), PETS)

    def _open_sample(self, dataset, index, size, flip):
        self.mask = read_mask(dataset.samples[index])
        assert self.mask.shape == size
        return lambda clicks, text: Segmentation(self.answer(clicks).astype(np.uint8), CLICKED)

    def answer(self, clicks):
        x, y, label = clicks[0]
        assert len(clicks) == label == 1 and self.mask[y, x] != VOID
        return self.mask == self.mask[y, x]


def test_a_perfect_model_scores_one_and_both_clicks_count(oxford_root):
    dataset = SegmentationDataset(oxford_root, "test", 32)
    seen = []
    confusions = Oracle().score(dataset, on_prediction=lambda index, ids, part: seen.append((index, part, ids.mean())))
    assert confusions.shape == (8, 2, 2)
    known = [int((read_mask(sample) != VOID).sum()) for sample in dataset.samples]
    assert confusions.sum((1, 2)).tolist() == [2 * pixels for pixels in known]
    assert (confusions.sum(0) - torch.diag(confusions.sum(0).diagonal())).sum() == 0
    assert [name for _, name, _ in seen] == ["animal", "background"] * 8


def test_further_clicks_are_counted_after_the_last_one(oxford_root):
    class Slow(Oracle):
        """Finds nothing until it is told twice where the thing is."""

        def answer(self, clicks):
            clicked.append(len(clicks))
            assert {label for *_, label in clicks} == {1}  # nothing is ever superfluous
            x, y, _ = clicks[-1]
            found = self.mask == self.mask[y, x]
            return found if len(clicks) > 2 else np.zeros_like(found)

    clicked = []
    dataset = SegmentationDataset(oxford_root, "test", 32)
    one, two, three = (Slow().score(dataset, clicks=clicks).sum(0) for clicks in (1, 2, 3))
    assert torch.equal(one, two) and one[1, 1] == 0 and one[1, 0] > 0
    assert three[1, 0] == three[0, 1] == 0 and three[1, 1] == one[1, 0]
    assert max(clicked) == 3


def test_curves_follow_the_corrections_and_end_when_nothing_is_wrong(oxford_root):
    samples = list_samples(oxford_root, "test")
    truths = {image.tobytes(): mask for image, mask in map(read_sample, samples)}
    asked = []

    class Blocks(Oracle):
        def open(self, image, flip=False):
            predict = blocks(image)
            return lambda clicks, text: Segmentation(predict(clicks).astype(np.uint8), CLICKED)

    def blocks(image):  # learns the truth of a 24 pixel block per click
        truth = truths[image.tobytes()]
        thing = truth == truth[truth != VOID].max()

        def predict(clicks):
            asked.append(len(clicks))
            mask = np.zeros(thing.shape, bool)
            for x, y, _ in clicks:
                block = slice(max(y - 12, 0), y + 12), slice(max(x - 12, 0), x + 12)
                mask[block] = thing[block]
            return mask

        return predict

    ious = click_curves(Blocks(), samples, True, "")
    assert ious.shape == (8, 20) and (ious[:, 1:] >= ious[:, :-1]).all()
    assert (ious[:, 0] < 1).any() and (ious[:, -1] == 1).all()
    assert len(asked) < 8 * 10  # a picture that is right gets no further click
    assert not torch.equal(ious, click_curves(Blocks(), samples, False, ""))


# ---------------------------------------------------------------------------------------------- scripts

SMALL = ("--PROMPT=point", "--ENCODER=tiny", "--AUGMENT_FEATURES=False", "--IMAGE_SIZE=64", "--WIDTHS=8,8,16,32")


@pytest.fixture(scope="module")
def trained(oxford_root, tmp_path_factory):
    """A folder with checkpoints/pointclip/best.safetensors, trained until clicks work on drawn blobs."""
    folder = tmp_path_factory.mktemp("point")
    options = (*SMALL, "--EPOCHS=30", "--BATCH_SIZE=7", "--EMA_DECAY=0.9", "--LEARNING_RATE=0.003")
    easy = ("--SCALE=1,1", "--ROTATION=0.0", "--COLOUR=0.0", "--DROPOUT=0.0")
    every = (f"--DATA_ROOT={oxford_root}", *options, *easy)
    warm.run(REPOSITORY / "train_clip.py", every, folder, script_environment(), 300).check_returncode()
    return folder / "checkpoints"


@pytest.mark.slow
def test_a_training_may_start_from_the_row_s_checkpoint_and_be_used_at_a_larger_size(oxford_root, trained, tmp_path):
    start = trained / "pointclip" / "best.safetensors"
    options = (*SMALL, "--EPOCHS=1", "--BATCH_SIZE=7", "--LEARNING_RATE=1e-7", "--EMA_DECAY=0.0", "--VIEW_SIZE=96")
    run_here(train_clip, f"--DATA_ROOT={oxford_root}", f"--CHECKPOINTS={tmp_path}", f"--START={start}", *options)
    before, after = checkpoint.load(start), checkpoint.load(tmp_path / "pointclip" / "best.safetensors")
    assert (before["image_size"], after["image_size"]) == (64, 96)
    for name, value in before["weights"].items():
        if value.is_floating_point() and "running" not in name:
            assert torch.allclose(value.float(), after["weights"][name].float(), atol=1e-3), name


@pytest.mark.slow
def test_one_click_finds_the_thing_and_the_tables_are_written(run_script, oxford_root, trained, tmp_path):
    options = ("--ROWS=PointCLIP", "--CLICKS=PointCLIP,disk,everything", "--PICTURES=5", "--FLIP=True")
    done = run_script(
        "evaluate.py", f"--DATA_ROOT={oxford_root}", f"--CHECKPOINTS={trained}", *options, "--SAVE_MASKS=masks"
    )
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "results" / "results.csv") as file:
        lines = list(csv.DictReader(file))
    assert [(line["model"], line["flip"]) for line in lines] == [("PointCLIP", "0"), ("PointCLIP", "1")]
    assert float(lines[0]["miou"]) > 0.7 and lines[0]["iou_cat"] == "" and lines[0]["images"] == "8"
    union, overlap = np.zeros(2), np.zeros(2)
    for sample in list_samples(oxford_root, "test"):  # the number is that of the saved masks
        mask = read_mask(sample)
        for name in ("animal", "background"):
            thing = np.array(Image.open(tmp_path / "masks" / "PointCLIP" / name / f"{sample.name}.png"))[mask != VOID]
            truth = (mask[mask != VOID] != 0) == (name == "animal")
            for value in (0, 1):
                overlap[value] += ((thing == value) & (truth == value)).sum()
                union[value] += ((thing == value) | (truth == value)).sum()
    assert lines[0]["miou"] == f"{(overlap / union).mean():.4f}"
    with open(tmp_path / "results" / "clicks.csv") as file:
        curves = list(csv.DictReader(file))
    assert list(curves[0]) == "model,data,split,zoom,first_click,clicks,miou_animal,noc85,noc90,images".split(",")
    assert {line["images"] for line in curves} == {"5"}
    iou = {(line["model"], line["first_click"], line["clicks"]): float(line["miou_animal"]) for line in curves}
    assert iou["PointCLIP", "central", "1"] > 1.2 * iou["everything", "central", "1"]
    assert iou["everything", "central", "1"] == iou["everything", "random", "10"]
    assert {key[2] for key in iou} == {"1", "2", "3", "5", "10"}
    assert (tmp_path / "images" / "clicks.png").is_file() and (tmp_path / "predictions" / "examples.png").is_file()


@pytest.mark.slow
def test_predict_by_clicks_marks_what_is_under_them(run_script, oxford_root, trained, tmp_path):
    sample = list_samples(oxford_root, "test")[0]
    mask = read_mask(sample)
    x, y, _ = next_click(thing_mask(mask, 1), np.zeros(mask.shape, bool))
    done = run_script("predict.py", sample.image, f"--POINT={x},{y}", "--POINT=1,1,0", f"--CHECKPOINTS={trained}")
    assert done.returncode == 0, done.stderr
    predicted = np.array(Image.open(tmp_path / "predictions" / "masks" / f"{sample.name}.png"))
    assert predicted.shape == mask.shape and predicted[y, x] == 1 and predicted[1, 1] == 0
    assert binary_iou(thing_mask(mask, 1), predicted == 1) > 0.6
    assert (tmp_path / "predictions" / "overlays" / f"{sample.name}.png").is_file()
    for options, message in (
        (["--POINT=a,b"], "write x,y in pixels"),
        (["--POINT=1,2,1,0"], "write x,y in pixels"),
        (["--POINT=999,0"], "outside of the picture"),
        (["--POINT=1,1,0"], "at least one click"),
        (["--POINT=1,1", "--TEXT=a cat"], "give one of them"),
        (["--POINT=1,1", "--CHECKPOINTS=none"], "train_clip.py --PROMPT=point"),
    ):
        refused = run_script("predict.py", sample.image, f"--CHECKPOINTS={trained}", *options)
        assert refused.returncode == 1 and message in refused.stderr and "Traceback" not in refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, False])
def test_training_on_a_frozen_encoder_is_reproducible_and_has_no_encoder_in_its_checkpoint(
    run_script, oxford_root, tiny_clip_folder, tmp_path, kept
):
    options = ("--PROMPT=point", f"--ENCODER={tiny_clip_folder}", f"--AUGMENT_FEATURES={kept}")
    options += ("--IMAGE_SIZE=32", "--EPOCHS=2", "--BATCH_SIZE=8")
    for folder in ("a", "b"):
        done = run_script("train_clip.py", f"--DATA_ROOT={oxford_root}", *options, f"--CHECKPOINTS={folder}")
        assert done.returncode == 0, done.stderr
    first, second = (
        checkpoint.load(tmp_path / folder / "pointclip" / "best.safetensors")["weights"] for folder in "ab"
    )
    assert first and not any(name.startswith("encoder.") for name in first)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
