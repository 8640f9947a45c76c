"""demo.py: what clicks, texts and bad files do; without a browser, and in a headless one."""

import socket
import threading
import time
import urllib.request
from contextlib import suppress

import numpy as np
import pytest
import torch
from PIL import Image

import demo
from utils.classes import PETS
from utils.errors import UserError
from utils.figures.overlays import outline
from utils.inputs.pictures import read_image
from utils.rows.by_class import ByClass
from utils.rows.by_click import ByClick
from utils.rows.by_text import ByText

pytestmark = pytest.mark.filterwarnings("ignore:::gradio.queueing")  # its use of pandas

# Disks in a picture of 300 x 200: centre (x, y), colour
DISKS = {"red": ((60, 50), (200, 40, 40)), "green": ((200, 60), (40, 200, 40)), "blue": ((110, 150), (40, 40, 200))}
SIZE = 64


class Colours(torch.nn.Module):
    """Stands in for all models with known answers: what has the colour under a click, or that is named."""

    image_size, mean, std = SIZE, (0, 0, 0), (1, 1, 1)

    def encode(self, images, tokens=None):
        return [images]

    def decode(self, features, clicks, previous=None):
        image = features[0][0]
        near, far = torch.full((2, SIZE, SIZE), 9.0)  # distances in colour to the clicks on the thing, on the rest
        for x, y, label in clicks[0].tolist():
            distance = (image - image[:, int(y * SIZE), int(x * SIZE), None, None]).norm(dim=0)
            near, far = (torch.minimum(near, distance), far) if label else (near, torch.minimum(far, distance))
        return (20 * torch.minimum(0.3 - near, far - 0.3))[None, None]

    def encode_prompts(self, prompts):
        # the classes' own prompts are templates: red for all of them
        return torch.tensor([DISKS.get(texts[0], DISKS["red"])[1] for texts in prompts]) / 255

    def forward(self, images, colours=None):
        if colours is None:  # by class: red for cats and green for dogs
            return torch.cat([torch.full_like(images[:, :1], 150 / 255), images[:, :2]], 1)
        return 20 * (0.3 - (images[:, None] - colours[None, :, :, None, None]).norm(dim=2))


def load(name):
    """Stands in for demo.load."""
    kind, about = {"CLIPSeg": ByText, "PointCLIP": ByClick}.get(name, ByClass), (Colours.mean, Colours.std, PETS)
    return kind(name, Colours(), torch.device("cpu"), SIZE, *about, zoom=kind is ByClick)


@pytest.fixture(scope="module", autouse=True)
def settings(tmp_path_factory):
    """Stand-ins for all rows; puts back what demo.main() changes for its whole process."""
    folder = tmp_path_factory.mktemp("checkpoints")
    changed = {"CHECKPOINTS": str(folder), "DEVICE": "cpu", "MAX_PIXELS": 10**6}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**changed, "load": load, "best_row": lambda checkpoints: "UNET"}.items():
            patch.setattr(demo, name, value)
        patch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The disks, and files that are refused."""
    folder = tmp_path_factory.mktemp("files")
    picture = np.full((200, 300, 3), 128, np.uint8)
    for name, (_, colour) in DISKS.items():
        picture[disk(name)] = colour
    Image.fromarray(picture).save(folder / "disks.png")
    Image.new("1", (2000, 600)).save(folder / "huge.png")
    (folder / "fake.jpg").write_bytes(b"no picture")
    return {file.stem: file for file in folder.iterdir()}


@pytest.fixture
def session(files):
    """A tab that shows the disks."""
    return demo.Session(read_image(files["disks"]), "disks")


def disk(name):
    rows, columns = np.mgrid[:200, :300]
    (x, y), _ = DISKS[name]
    return np.hypot(columns - x, rows - y) < 35


def covers(mask, *names):
    """Whether the mask is these disks, at the picture's size; the stand-ins work at a coarser one."""
    truth = np.any([disk(name) for name in names], 0)
    return mask.shape == truth.shape and ((mask == 1) & truth).sum() / ((mask == 1) | truth).sum() > 0.85


def ask(session, clicks, folder):
    _, line, files = demo.show_mask(session, "PointCLIP", "", clicks, str(folder))
    return files and np.array(Image.open(files[0])), line


def test_clicks_add_up_and_undoing_one_restores_the_mask_before_it(session, tmp_path, monkeypatch):
    encoded, masks = [], []
    monkeypatch.setattr(Colours, "encode", lambda self, images, tokens=None: encoded.append(1) or [images])
    for name, label, expected in (("red", 1, ("red",)), ("blue", 1, ("red", "blue")), ("red", 0, ("blue",))):
        masks.append(ask(session, [*session.clicks, (*DISKS[name][0], label)], tmp_path)[0])
        assert covers(masks[-1], *expected)
    assert len(encoded) == 4  # the picture, a window around the first disk, and one for every further click
    for before in (masks[1], masks[0]):
        assert np.array_equal(ask(session, session.clicks[:-1], tmp_path)[0], before)
    mask, line = ask(session, session.clicks[:-1], tmp_path)
    assert mask is None and "Click" in line and session.clicks == [] and len(encoded) == 4  # undoing costs nothing
    mask, line = ask(session, [(5, 5, 0)], tmp_path)  # a click that is refused is not kept
    assert mask is None and "at least one click must be on the thing" in line and session.clicks == []


@pytest.mark.parametrize("size", [(300, 200), (37, 53), (3000, 9), (1, 1)])
def test_a_click_on_the_view_finds_its_pixel_in_pictures_of_any_size(size):
    image = np.zeros((size[1], size[0], 3), np.uint8)
    width, height = demo.view_size(image)
    assert max(width, height) == demo.VIEW_SIZE and demo.draw_view(image, None).shape == (height, width, 3)
    for share in (0, 0.3, 1):
        shown = (int(share * (width - 1)), int(share * (height - 1)))
        for found, place, own, view in zip(demo.pixel_under(shown, image), shown, size, (width, height), strict=True):
            assert 0 <= found < own and abs((found + 0.5) / own - (place + 0.5) / view) <= max(0.5 / own, 0.5 / view)


def test_a_model_that_cannot_be_loaded_is_a_message_below_the_picture(session, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "load", lambda name: demo.load_row(name, tmp_path, torch.device("cpu")))
    view, line, path = demo.show_mask(session, "UNET", "", [], str(tmp_path))
    assert view is not None and path is None and "`python train_unet.py` makes it" in line


@pytest.fixture(scope="module")
def url(settings):
    """The page as `python demo.py` serves it, on a free port."""
    pytest.importorskip("gradio", reason="the page needs requirements-demo.txt")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        demo.PORT = taken.getsockname()[1]
        taken.listen()
        with pytest.raises(UserError, match=f"--PORT={demo.PORT + 1}"):
            demo.main()
    threading.Thread(target=demo.main, daemon=True).start()
    address = f"http://127.0.0.1:{demo.PORT}"
    for _ in range(500):
        with suppress(OSError), urllib.request.urlopen(address):
            return address
        time.sleep(0.2)
    pytest.fail("demo.py serves no page")


@pytest.fixture
def open_tab(browser, url):
    """open_tab(width, height, scheme): a tab with the page; it must load nothing from elsewhere and raise no error."""
    tabs, faults = [], []

    def open_one(width=1280, height=900, scheme="light"):
        tabs.append(tab := browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme))
        tab.set_default_timeout(60_000)
        tab.on("request", lambda request: request.url.startswith((url, "data:", "blob:")) or faults.append(request.url))
        tab.on("pageerror", lambda error: faults.append(error))
        tab.goto(url)
        tab.wait_for_selector("#file input", state="attached")
        return tab

    yield open_one
    for tab in tabs:
        tab.close()
    assert not faults


def change(tab, action, *arguments):
    """Do something on the page and wait until it shows another picture."""
    source = "(document.querySelector('#picture img') || {}).src"
    before = tab.evaluate(source)
    action(*arguments)
    loaded = "document.querySelector('#picture img').complete"
    tab.wait_for_function(f"before => {source} != before && {loaded}", arg=before)


def upload(tab, file):
    change(tab, tab.set_input_files, "#file input", file)


def click(tab, name):
    """Click on the middle of a disk, wherever the page shows it."""
    view = tab.locator("#picture img")
    scale, (x, y) = view.bounding_box()["width"] / 300, DISKS[name][0]
    change(tab, lambda: view.click(position={"x": x * scale, "y": y * scale}))


def press(tab, name):
    tab.get_by_role("button", name=name).click()


def look(tab):
    """The picture as the page shows it, at its own size: int (200, 300, 3)."""
    tab.locator("#picture img").screenshot(path=(path := f"{demo.CHECKPOINTS}/look.png"))
    return np.array(Image.open(path).convert("RGB").resize((300, 200))).astype(int)


def download(tab, what="mask"):
    with tab.expect_download() as started:
        press(tab, f"Download the {what}")
    return np.array(Image.open(started.value.path()))


@pytest.mark.slow
def test_masks_land_under_the_clicks_of_their_own_tab_and_undo_restores_them(open_tab, files):
    tab, phone = open_tab(), open_tab(390, 844, "dark")
    for one in (tab, phone):
        upload(one, files["disks"])
    click(tab, "red")
    first, seen = download(tab), look(tab)
    assert covers(first, "red")
    click(phone, "green")
    click(tab, "blue")
    changed = np.abs(look(tab) - seen).max(-1) > 50
    assert covers(download(tab), "red", "blue") and covers(changed, "blue") and covers(download(phone), "green")
    tab.get_by_label("not part of it").check()
    click(tab, "red")
    assert covers(download(tab), "blue")
    for _ in range(2):
        change(tab, press, tab, "Undo")
    assert np.array_equal(download(tab), first) and np.abs(look(tab) - seen).max() < 5
    change(tab, press, tab, "Clear")
    assert tab.get_by_role("button", name="Download the mask").is_disabled()


@pytest.mark.slow
def test_a_picture_to_try_has_a_cut_out_and_stays_when_a_file_is_refused(open_tab, files):
    tab = open_tab()
    examples = tab.locator("#examples button img")
    examples.nth(2).wait_for()  # they are drawn after the page
    change(tab, lambda: examples.nth(0).click())
    cut, mask = download(tab, "cut-out"), download(tab)
    assert cut.shape == (300, 451, 4) and 0 < (mask > 0).mean() < 1
    soft = outline(mask, 1 + 2 * round(0.01 * np.hypot(*mask.shape)))
    assert np.array_equal(cut[..., 3][~soft], 255 * (mask > 0)[~soft]) and not soft.all()
    for name, reason in (("huge", "Image size"), ("fake", "cannot identify")):
        tab.set_input_files("#file input", files[name])
        tab.wait_for_selector(f"#message >> text={files[name].name}: cannot be read as a picture ({reason}")
    assert np.array_equal(download(tab), mask)
