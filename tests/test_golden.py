"""Logits of the shipped rows in fp32, which are the same on every machine.

GOLDEN=new python -m pytest tests/test_golden.py    # writes golden.json anew, after a row was trained anew
"""

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from test_shipped import CAT, CPU, FOLDER, row

from utils.files import write_text
from utils.inputs.augment import normalise
from utils.inputs.clicks import to_tensor
from utils.inputs.pictures import read_image
from utils.rows.row import squash

FILE = Path(__file__).with_name("golden.json")
NAMES = ("UNET", "Autoencoder", "CLIP", "CLIP fine-tuned", "PointCLIP")
CLICK = (230, 170, 1)  # on the face


@torch.inference_mode()
def logits(name: str) -> torch.Tensor:
    """Logits of the cat at every 32nd place (C, h, w), at the size that the row was trained for."""
    shipped, image = row(name), read_image(CAT)
    if hashlib.sha256(Path(shipped.checkpoint).read_bytes()).hexdigest() not in (FOLDER / "SHA256SUMS").read_text():
        pytest.skip(f"{shipped.checkpoint} is not the one that comes with the repository")
    shown = normalise(squash([image], shipped.image_size, CPU), shipped.mean, shipped.std)
    clicks = [to_tensor([CLICK], image.shape[:2])[None]] if shipped.prompt else []
    return shipped.model(shown, *clicks)[0, :, 16::32, 16::32]


@pytest.mark.parametrize("name", NAMES)
def test_the_logits_of_the_cat_are_the_same_on_every_machine(name):
    found = logits(name).flatten(0, 1)
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    if os.environ.get("GOLDEN") == "new":
        known[name] = [" ".join(f"{value:.4f}" for value in line) for line in found.tolist()]
        write_text(json.dumps(known, indent=1) + "\n", FILE)
    expected = torch.tensor([[float(value) for value in line.split()] for line in known[name]])
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
