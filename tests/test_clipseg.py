"""CLIPSeg against the transformers model it is built from; tiny random weights."""

import copy
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.clipseg import CLIPSeg
from utils.classes import PETS
from utils.rows.by_text import ByText

FOLDER = Path(os.environ.get("CLIPSEG_FOLDER", Path(__file__).parents[2] / "shared" / "clipseg-rd64-refined"))
PROMPTS = [["a cat"], ["a photo of a dog"], ["grass"]]

needs_folder = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no CLIPSeg configuration and tokenizer in {FOLDER}")


def toy_tokenizer(texts: list[str], padding: bool, truncation: bool, return_tensors: str) -> dict[str, torch.Tensor]:
    """Letters as tokens between 98 (start) and 99 (end and padding), called as CLIP's tokenizer is."""
    rows = [[98, *(ord(letter) % 90 for letter in text), 99] for text in texts]
    length = max(map(len, rows))
    ids = torch.tensor([row + [99] * (length - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


def tiny_reference(vocabulary: int = 100, refined: bool = True):
    """A random CLIPSegForImageSegmentation of six narrow layers, of which the decoder reads 1, 2 and 4."""
    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

    special = {"bos_token_id": vocabulary - 2, "eos_token_id": 2}  # 2, as in the official file: pools at the highest id
    small = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    config = CLIPSegConfig(
        text_config={**small, **special, "num_hidden_layers": 2, "vocab_size": vocabulary},
        vision_config={**small, "num_hidden_layers": 6, "image_size": 64, "patch_size": 16},
        projection_dim=12,
        reduce_dim=8,
        extract_layers=[1, 2, 4],
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
        use_complex_transposed_convolution=refined,
    )
    torch.manual_seed(0)
    reference = CLIPSegForImageSegmentation(config).eval()
    for parameter in reference.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.5)  # large enough for the prompts to show in the logits
    return reference


@pytest.fixture(scope="module")
def reference():
    return tiny_reference()


@pytest.fixture
def model(reference) -> CLIPSeg:
    return CLIPSeg(copy.deepcopy(reference), toy_tokenizer, image_size=64)


@pytest.mark.parametrize("side", [64, 96])  # the positions as they are, and resized
@pytest.mark.parametrize("refined", [True, False])  # the two heads there are
def test_logits_are_those_of_the_reference_for_every_picture_and_prompt(side, refined):
    reference = tiny_reference(refined=refined).double()  # so that the order of summation does not show
    model = CLIPSeg(copy.deepcopy(reference), toy_tokenizer)
    pictures = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1)).double()
    logits = model(pictures, model.encode_prompts(PROMPTS))

    assert logits.shape == (2, 3, side, side)
    for i, picture in enumerate(pictures):
        for j, (prompt,) in enumerate(PROMPTS):
            tokens = toy_tokenizer([prompt], True, True, "pt")
            expected = reference(pixel_values=picture[None], **tokens).logits
            torch.testing.assert_close(logits[i, j], expected.view(side, side), atol=1e-9, rtol=1e-9)
    assert (logits[:, 0] - logits[:, 1]).abs().max() > 0.01  # or the comparison would show nothing
    assert (logits[0] - logits[1]).abs().max() > 0.01


def test_templates_of_a_class_are_averaged_unnormalised(model):
    cat, photo, dog = model.encode_prompts([["a cat"], ["a photo of a cat"], ["a dog"]])
    averaged = model.encode_prompts([["a cat", "a photo of a cat"], ["a dog"]])
    torch.testing.assert_close(averaged, torch.stack([(cat + photo) / 2, dog]))
    assert (cat.norm() - 1).abs() > 0.01


def row_of(model, **options) -> ByText:
    return ByText("CLIPSeg", model, torch.device("cpu"), 64, (0.5,) * 3, (0.5,) * 3, PETS, **options)


def test_class_is_the_highest_score_above_the_threshold_else_background():
    cat = torch.tensor([[0.2, 0.6, 0.6, 0.9], [0.5, 0.4, 0.1, 0.7]])
    dog = torch.tensor([[0.1, 0.2, 0.8, 0.8], [0.5, 0.6, 0.3, 0.7]])

    def model(images, conditionals):
        return torch.stack([cat, dog]).logit()[None]

    model.encode_prompts = len
    for threshold, ids in (
        (0.25, [[0, 1, 2, 1], [1, 2, 2, 1]]),
        (0.5, [[0, 1, 2, 1], [0, 2, 0, 1]]),  # .5 does not exceed .5; a tie goes to the first
        (0.75, [[0, 0, 2, 1], [0, 0, 0, 0]]),
    ):
        assert row_of(model, threshold=threshold).segment(np.zeros((2, 4, 3), np.uint8)).ids.tolist() == ids


def test_with_flip_scores_are_the_mean_of_both():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    ramp = torch.linspace(-3, 3, 64)  # so that a mirror image has other scores

    def model(images, conditionals):
        return images[:, :1] + ramp

    model.encode_prompts = len
    red = torch.from_numpy(image[..., 0]) / 127.5 - 1
    plain, mirrored = (red + ramp).sigmoid(), (red - ramp).sigmoid()
    for flip, expected in ((False, plain), (True, (plain + mirrored) / 2)):
        ids = row_of(model, flip=flip, threshold=0.6).segment(image, text="a cat").ids
        assert (ids == (expected > 0.6).numpy()).mean() > 0.999  # but for rounding
    assert ((plain > 0.6) != ((plain + mirrored) / 2 > 0.6)).float().mean() > 0.1


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A local folder as from the hub: tiny random weights, the official tokenizer and preprocessor files."""
    folder = tmp_path_factory.mktemp("clipseg")
    for file in FOLDER.glob("*"):
        shutil.copyfile(file, folder / file.name)
    tiny_reference(vocabulary=49408).save_pretrained(folder)
    return folder


@needs_folder
def test_local_folder_brings_weights_tokenizer_and_normalisation(saved):
    model = CLIPSeg.from_pretrained(saved)
    assert model.image_size == 352
    assert (model.mean, model.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    built = CLIPSeg(tiny_reference(vocabulary=49408), model.tokenizer)
    torch.testing.assert_close(model.encode_prompts(PROMPTS), built.encode_prompts(PROMPTS))
    assert model.encode_prompts([["a cat " * 200]]).isfinite().all()  # cut at 77 tokens


@needs_folder
@pytest.mark.parametrize("damage", ["cut off", "incomplete"])
def test_unusable_weights_in_a_local_folder_are_reported(saved, tmp_path, damage):
    folder = shutil.copytree(saved, tmp_path / "clipseg")
    weights = folder / "model.safetensors"
    if damage == "cut off":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        tensors = load_file(weights)
        save_file({name: tensors[name] for name in tensors if "film" not in name}, weights, {"format": "pt"})
    with pytest.raises(OSError, match="film_add" if damage == "incomplete" else str(folder)):
        CLIPSeg.from_pretrained(folder)
