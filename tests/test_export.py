"""ONNX files: the ids of predict.py from the pixels on, for any size, batch and number of clicks."""

import json
import logging
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, run_here
from PIL import Image
from skimage.data import chelsea  # CC0: a cat's face, 300 x 451 pixels

import export
import predict
from utils import checkpoint
from utils.classes import PETS
from utils.errors import UserError
from utils.inputs.augment import normalise
from utils.rows import load_row
from utils.rows.row import squash

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SHIPPED = str(REPOSITORY / "checkpoints")
PICTURES = {"cat": chelsea(), "portrait": chelsea()[:, 100:317], "small": chelsea()[::5, ::4], "dot": chelsea()[:1, :1]}
PICTURES |= {"row": chelsea()[:1, :40], "column": chelsea()[:40, :1]}
logging.getLogger("torch.__trace").propagate = False  # pytest would format what torch.export says of every step


@pytest.fixture(scope="module")
def unet_file(tmp_path_factory) -> Path:
    """The U-Net that comes with the repository."""
    path = tmp_path_factory.mktemp("onnx") / "unet.onnx"
    run_here(export, "--MODEL=unet", f"--OUT={path}", f"--CHECKPOINTS={SHIPPED}")
    return path


def predicted(monkeypatch, folder: Path, pictures: dict[str, np.ndarray], **constants) -> dict[str, np.ndarray]:
    """The masks that predict.py writes for pictures in fp32, as the files are."""
    (folder / "pictures").mkdir()
    for name, picture in pictures.items():
        Image.fromarray(picture).save(folder / "pictures" / f"{name}.png")
    constants = {"DEVICE": "cpu", "PRECISION": "fp32", "OUT": str(folder), **constants}
    for key, value in constants.items():
        monkeypatch.setattr(predict, key, value)
    assert predict.main([str(folder / "pictures")]) == 0
    return {name: np.array(Image.open(folder / "masks" / f"{name}.png")) for name in pictures}


def agreement(path: Path, masks: dict[str, np.ndarray]) -> float:
    """The least share of pixels, over PICTURES, where the file's ids are those of the masks."""
    session = onnxruntime.InferenceSession(path)
    shares = []
    for name, mask in masks.items():
        ids, probabilities = session.run(None, {"picture": PICTURES[name][None]})
        assert ids.dtype == np.uint8 and ids.shape == (1, *mask.shape)
        assert probabilities.dtype == np.float32 and probabilities.shape == (1, 3, *mask.shape)
        np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
        assert (probabilities.argmax(1) == ids).mean() > 0.999
        shares.append((ids[0] == mask).mean())
    return min(shares)


def test_a_picture_is_squashed_as_pillow_does_it_but_for_one_grey_level():
    for name, picture in PICTURES.items():
        expected = np.array(Image.fromarray(picture).resize((160, 160), Image.Resampling.BILINEAR))
        squashed = export.squash(torch.tensor(picture)[None], 160)[0].movedim(0, 2).numpy()
        off = np.abs(squashed.astype(int) - expected)
        assert off.max() <= 1 and off.mean() < 0.01, name


@pytest.mark.slow
def test_the_shipped_unet_gives_the_ids_of_predict_alone_and_in_a_batch(unet_file, tmp_path, monkeypatch):
    masks = predicted(monkeypatch, tmp_path, PICTURES, MODEL="unet", CHECKPOINTS=SHIPPED)
    assert (masks["cat"] == 1).mean() > 0.5 and agreement(unet_file, masks) > 0.999
    batch = np.stack([chelsea(), chelsea()[::-1, ::-1]])
    (together,) = onnxruntime.InferenceSession(unet_file).run(["ids"], {"picture": batch})
    assert (together[0] == masks["cat"]).mean() > 0.999 and (together[0] != together[1]).mean() > 0.1


@pytest.mark.slow
def test_in_8_bits_the_file_is_half_as_large_and_its_ids_are_nearly_the_same(
    unet_file, oxford_root, tmp_path, monkeypatch
):
    path = tmp_path / "small.onnx"
    options = ("--INT8=True", f"--DATA_ROOT={oxford_root}", f"--OUT={path}", f"--CHECKPOINTS={SHIPPED}")
    run_here(export, "--MODEL=unet", *options)
    assert path.stat().st_size < 0.6 * unet_file.stat().st_size
    small, whole = (onnxruntime.InferenceSession(file) for file in (path, unet_file))
    assert small.get_modelmeta().custom_metadata_map == whole.get_modelmeta().custom_metadata_map
    ids = [session.run(["ids"], {"picture": chelsea()[None]})[0] for session in (small, whole)]
    assert (ids[0] == ids[1]).mean() > 0.95
    with pytest.raises(UserError, match="INT8 = True: PointCLIP is not a row by class"):
        run_here(export, "--MODEL=pointclip", *options)


@pytest.mark.slow
def test_the_file_says_what_it_is_and_nothing_of_the_machine_that_made_it(unet_file):
    metadata = onnxruntime.InferenceSession(unet_file).get_modelmeta().custom_metadata_map
    about = {"row": "UNET", "image_size": checkpoint.load(f"{SHIPPED}/unet")["image_size"]}
    about |= {"classes": list(PETS.names), "colours": [list(colour) for colour in PETS.colours]}
    assert {key: json.loads(value) for key, value in metadata.items()} == about
    assert not any(folder.encode() in unet_file.read_bytes() for folder in (str(REPOSITORY), torch.__path__[0]))


@pytest.mark.slow
def test_the_shipped_clip_fine_tuned_gives_the_ids_of_predict_without_zoom(tmp_path, monkeypatch):
    run_here(export, "--MODEL=clip_finetuned", f"--OUT={tmp_path / 'clip.onnx'}", f"--CHECKPOINTS={SHIPPED}")
    masks = predicted(monkeypatch, tmp_path, PICTURES, MODEL="clip_finetuned", ZOOM=False, CHECKPOINTS=SHIPPED)
    assert (masks["cat"] == 1).mean() > 0.5 and agreement(tmp_path / "clip.onnx", masks) > 0.999


@pytest.mark.slow
def test_the_example_gives_the_mask_of_predict_and_after_two_clicks_the_model_s(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(chelsea()[:180, 100:340]).save("photo.jpg")
    picture = np.array(Image.open("photo.jpg"))
    # Random weights differ between versions of torch: shifted so that the mask is neither empty nor full.
    row, content = load_row("PointCLIP", trained, torch.device("cpu")), checkpoint.load(trained / "pointclip")
    shown = normalise(squash([picture], row.image_size, row.device), row.mean, row.std)
    with torch.inference_mode():
        content["weights"]["head.2.bias"][-1] -= row.model(shown, torch.tensor([[[0.9, 0.8, 1.0]]])).median()
    trained = tmp_path / "shifted"
    checkpoint.save(content, trained / "pointclip" / "best.safetensors")
    run_here(export, "--MODEL=pointclip", f"--CHECKPOINTS={trained}")
    assert "wrote pointclip_encoder.onnx (" in capsys.readouterr().out
    example = textwrap.dedent(export.__doc__[export.__doc__.index("    import numpy") :])
    one_click = example.replace(", (30, 40, 0)]", "]")
    assert one_click != example
    exec(one_click, {})
    about = {"POINT": ["210,140"], "ZOOM": False, "CHECKPOINTS": str(trained)}
    expected = predicted(monkeypatch, tmp_path, {"photo": picture}, **about)["photo"]
    assert 0.002 < expected.mean() < 0.998 and (np.array(Image.open("mask.png")) == (expected == 1)).mean() > 0.999

    exec(example, {})
    row, previous = load_row("PointCLIP", trained, torch.device("cpu")), None
    clicks = torch.tensor([[[210.5 / 240, 140.5 / 180, 1], [30.5 / 240, 40.5 / 180, 0]]])
    with torch.inference_mode():
        features = row.model.encode(normalise(squash([picture], row.image_size, row.device), row.mean, row.std))
        for count in (1, 2):
            logits = row.model.decode(features, clicks[:, :count], previous)
            previous = logits.sigmoid()
    expected = torch.nn.functional.interpolate(logits, (180, 240), mode="bilinear")[0, 0].numpy() > 0
    assert (np.array(Image.open("mask.png")) == expected).mean() > 0.999


@pytest.mark.slow
def test_a_file_that_gives_something_else_than_pytorch_is_an_error(unet_file):
    row = load_row("UNET", SHIPPED, torch.device("cpu"))
    graph = export.ClassGraph(row)
    with torch.no_grad():
        row.model.head.bias += torch.tensor([0.0, 1.0, 0.0])
        with pytest.raises(UserError, match="of probabilities differ between onnxruntime and PyTorch"):
            export.check(unet_file.read_bytes(), graph)


def test_a_row_by_text_and_a_missing_package_are_errors_that_say_why(monkeypatch):
    with pytest.raises(UserError, match="CLIPSeg cannot be exported: its classes are texts"):
        run_here(export, "--MODEL=clipseg")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="onnxruntime is missing: pip install -r requirements-export.txt"):
        run_here(export)
