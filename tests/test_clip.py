"""The image encoder against transformers, the decoder, kept features, and train_clip.py from end to end."""

import numpy as np
import pytest
import torch
import transformers
from conftest import TOWER
from utils.inputs.features import FeatureDataset, encoder_key
from utils.training.rates import parameter_groups

import train_clip
from models.blocks import SelfAttention
from models.clip import CLIPCNN, ImageEncoder
from utils.errors import UserError
from utils.inputs.dataset import SegmentationDataset

CPU = torch.device("cpu")


def tiny_vit(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    makers = {
        "clip": lambda: transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**TOWER)),
        "siglip": lambda: transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**TOWER)),
        "vit": lambda: transformers.ViTModel(transformers.ViTConfig(**TOWER)),
        "dinov2": lambda: transformers.Dinov2Model(transformers.Dinov2Config(**TOWER)),
        "registers": lambda: transformers.Dinov2WithRegistersModel(
            transformers.Dinov2WithRegistersConfig(**TOWER, num_register_tokens=3)
        ),
    }
    vit = makers[kind]().eval()
    with torch.no_grad():
        for parameter in vit.parameters():  # positions that are all zero would hide a mistake in resizing them
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return vit


@pytest.mark.parametrize("size", [32, 48])
@pytest.mark.parametrize(("kind", "extra"), [("clip", 1), ("siglip", 0), ("vit", 1), ("dinov2", 1), ("registers", 4)])
def test_tokens_are_the_hidden_states_of_transformers_without_class_and_registers(kind, extra, size):
    vit = tiny_vit(kind)
    images = torch.randn(2, 3, size, size)
    side = size // 8
    resize = {} if "dino" in kind or kind == "registers" else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        states = vit(images, output_hidden_states=True, **resize).hidden_states
        tokens = ImageEncoder(vit)(images)
    assert states[0].shape[1] == extra + side * side
    assert tokens.shape == (2, 3 * 16, side, side)
    for number, layer in enumerate((2, 4, 6)):  # thirds of the depth
        for row, column in ((0, 0), (0, side - 1), (side - 1, 1)):
            expected = states[layer][:, extra + row * side + column]
            torch.testing.assert_close(tokens[:, 16 * number : 16 * (number + 1), row, column], expected)


@pytest.mark.parametrize("kind", ["clip", "siglip", "vit", "dinov2", "registers"])
def test_an_encoder_is_rebuilt_from_its_configuration_without_any_file(kind):
    original = ImageEncoder(tiny_vit(kind), (2, 5), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)).eval()
    rebuilt = ImageEncoder.from_config(original.config(), (2, 5)).eval()
    rebuilt.load_state_dict(original.state_dict())
    images = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        for ours, theirs in zip(rebuilt.encode(images), original.encode(images), strict=True):
            torch.testing.assert_close(ours, theirs)
    assert (rebuilt.mean, rebuilt.std) == (original.mean, original.std)


@pytest.mark.parametrize(("kind", "classed"), [("clip", True), ("siglip", False), ("registers", True)])
def test_a_picture_in_one_vector_is_its_class_token_or_the_mean_of_its_tokens(kind, classed):
    vit = tiny_vit(kind)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        last = vit(images).last_hidden_state
        whole = ImageEncoder(vit).encode(images)[1]
    torch.testing.assert_close(whole, last[:, 0] if classed else last.mean(1))


def test_layers_are_a_choice_and_an_unknown_one_is_refused():
    assert ImageEncoder(tiny_vit("vit"), layers=(1, 6)).channels == 32
    with pytest.raises(ValueError, match="blocks 1 to 6"):
        ImageEncoder(tiny_vit("vit"), layers=(7,))


def test_a_size_that_is_no_multiple_of_the_patch_is_refused():
    with pytest.raises(ValueError, match="multiples of 8"):
        ImageEncoder(tiny_vit("vit"))(torch.zeros(1, 3, 32, 33))


def test_the_picture_tower_and_normalisation_are_read_from_a_folder(tiny_clip_folder):
    encoder = ImageEncoder.from_pretrained(str(tiny_clip_folder)).eval()
    whole = transformers.CLIPModel.from_pretrained(tiny_clip_folder).eval()
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = whole.vision_model(images, output_hidden_states=True).hidden_states[6][:, 1:]
        tokens = encoder(images)[:, 32:].flatten(2).transpose(1, 2)
    torch.testing.assert_close(tokens, expected)
    assert encoder.mean == (0.4, 0.5, 0.6) and encoder.std == (0.2, 0.3, 0.25)


def test_a_folder_whose_weights_are_incomplete_is_refused(tiny_clip_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    for file in tiny_clip_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    dropped = next(name for name in weights if "vision_model" in name and "mlp" in name)
    del weights[dropped]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(OSError, match="1 weights are missing"):
        ImageEncoder.from_pretrained(str(tmp_path))


@pytest.mark.parametrize(("channels", "heads"), [(64, 2), (40, 1)])
def test_self_attention_is_softmax_of_query_and_key_times_value_per_head(channels, heads):
    torch.manual_seed(0)
    attention = SelfAttention(channels).eval()
    x = torch.randn(2, channels, 3, 4)
    width = channels // heads
    with torch.no_grad():
        query, key, value = attention.qkv(attention.norm(x)).flatten(2).split(channels, dim=1)  # (2, C, 12)
        mixed = torch.zeros_like(value)
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            weights = (query[:, part].transpose(1, 2) @ key[:, part] / width**0.5).softmax(-1)  # (2, 12, 12)
            mixed[:, part] = value[:, part] @ weights.transpose(1, 2)
        torch.testing.assert_close(attention(x), x + attention.out(mixed.view_as(x)))


@pytest.mark.parametrize("size", [32, 72])
def test_logits_have_half_the_size_of_the_picture(tiny_clip_folder, size):
    model = CLIPCNN(str(tiny_clip_folder), widths=(4, 8, 8, 16)).eval()
    assert model(torch.randn(1, 3, size, size)).shape == (1, 3, size // 2, size // 2)


def test_given_tokens_take_the_place_of_the_encoder(tiny_clip_folder):
    model = CLIPCNN(str(tiny_clip_folder), widths=(4, 8, 8, 16)).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected, tokens = model(images), model.encoder(images)
        model.encoder = None
        torch.testing.assert_close(model(images, tokens), expected)


def test_a_frozen_encoder_gets_no_gradient_and_a_free_one_does(tiny_clip_folder):
    for frozen in (True, False):
        model = CLIPCNN(str(tiny_clip_folder), widths=(4, 8, 8, 16), freeze_encoder=frozen)
        model(torch.randn(2, 3, 32, 32)).sum().backward()
        touched = [p.grad is not None for p in model.encoder.parameters()]
        assert any(touched) != frozen and all(p.grad is not None for p in model.decoder.parameters())


@pytest.fixture
def features(oxford_root, tiny_clip_folder):
    encoder = ImageEncoder.from_pretrained(str(tiny_clip_folder))
    return FeatureDataset(oxford_root, "val", 32, encoder, ["tiny"], CPU, mirrored=True, precision="fp32"), encoder


def test_kept_features_are_those_of_the_picture_and_of_its_mirror_image(features, oxford_root):
    from utils.inputs.augment import normalise

    dataset, encoder = features
    pictures = SegmentationDataset(oxford_root, "val", 32)
    assert len(dataset) == 2 * len(pictures)
    images, masks, tokens = dataset[[1, 1 + len(pictures)]]
    plain_image, plain_mask = pictures[1]
    assert torch.equal(images[0], plain_image) and torch.equal(images[1], plain_image.flip(-1))
    assert torch.equal(masks[1], plain_mask.flip(-1))
    with torch.no_grad():
        expected = encoder(normalise(images, encoder.mean, encoder.std))
    assert not torch.equal(tokens[0], tokens[1])
    torch.testing.assert_close(tokens.float(), expected, atol=1e-3, rtol=1e-3)  # kept in fp16


def test_kept_features_are_computed_once(features, oxford_root):
    class Untouchable(torch.nn.Module):
        patch_size, channels, mean, std = 8, 48, (0.5,) * 3, (0.5,) * 3

        def forward(self, images):
            raise AssertionError("the encoder ran again")

    dataset, _ = features
    again = FeatureDataset(oxford_root, "val", 32, Untouchable(), ["tiny"], CPU, mirrored=True, precision="fp32")
    assert np.array_equal(again.arrays["tokens"], dataset.arrays["tokens"])
    for encoder, precision in (("other", "fp32"), ("tiny", "bf16")):  # other features
        with pytest.raises(AssertionError):
            FeatureDataset(oxford_root, "val", 32, Untouchable(), [encoder], CPU, mirrored=True, precision=precision)


def test_other_weights_in_the_same_folder_are_another_encoder(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"one")
    keys = [encoder_key(str(tmp_path), (1, 2))]
    (tmp_path / "model.safetensors").write_bytes(b"others")
    keys += [encoder_key(str(tmp_path), (1, 2)), encoder_key(str(tmp_path), (2,))]
    assert len({str(key) for key in keys}) == 3
    assert encoder_key("openai/clip", (1, 2)) == ["openai/clip", [1, 2]]


SMALL = ("--IMAGE_SIZE=32", "--EPOCHS=2", "--BATCH_SIZE=8", "--WIDTHS=4,8,8,16", "--CHECKPOINTS=runs")


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, False])
def test_training_keeps_the_encoder_out_of_the_checkpoint_and_the_other_scripts_read_it(
    run_script, oxford_root, tiny_clip_folder, tmp_path, kept
):
    data, features = f"--DATA_ROOT={oxford_root}", f"--AUGMENT_FEATURES={kept}"
    done = run_script("train_clip.py", data, f"--ENCODER={tiny_clip_folder}", features, *SMALL)
    assert done.returncode == 0, done.stderr
    from utils.checkpoint import load

    content = load(tmp_path / "runs" / "clip" / "best.safetensors")
    assert content["arguments"]["encoder"] == str(tiny_clip_folder)
    assert content["weights"] and not any(name.startswith("encoder.") for name in content["weights"])
    scored = run_script("evaluate.py", data, "--CHECKPOINTS=runs", "--ROWS=UNET,CLIP")
    assert scored.returncode == 0, scored.stderr
    assert "train_unet.py" in scored.stdout and (tmp_path / "results" / "results.csv").is_file()
    log = (tmp_path / "runs" / "clip" / "log.csv").read_text().splitlines()
    assert len(log) == 3


@pytest.mark.slow
def test_an_encoder_that_cannot_be_had_stops_the_run_unless_a_fallback_is_asked_for(run_script, oxford_root, tmp_path):
    data, offline = f"--DATA_ROOT={oxford_root}", {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "empty")}
    refused = run_script("train_clip.py", data, *SMALL, env=offline)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    for hint in ("openai/clip-vit-base-patch16", "HF_HOME", "--local-dir"):
        assert hint in refused.stderr
    done = run_script("train_clip.py", data, *SMALL, "--FALLBACK=tiny", env=offline)
    assert done.returncode == 0, done.stderr
    assert "trains a tiny encoder from scratch" in done.stdout
    scored = run_script("evaluate.py", data, "--CHECKPOINTS=runs", "--ROWS=CLIP", env=offline)
    assert "tiny, from scratch" in scored.stdout


def test_the_same_checkpoint_without_its_encoder_says_which_one_is_missing(tmp_path, monkeypatch):
    from utils.checkpoint import save
    from utils.rows import load_model

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    arguments = {"encoder": str(tmp_path / "gone"), "layers": ()}
    save({"model": "clip", "arguments": arguments, "weights": {}, "encoder": "x"}, tmp_path / "best.safetensors")
    with pytest.raises(UserError, match="gone"):
        load_model(tmp_path / "best.safetensors", "clip", CPU)


@pytest.mark.parametrize(("encoder", "rate"), [("some/vit", 0.05), ("tiny", 1.0)])
def test_a_pretrained_encoder_is_trained_slowly_whatever_the_fallback_is(monkeypatch, encoder, rate):
    monkeypatch.setattr(train_clip, "FALLBACK", "tiny")
    model = CLIPCNN("tiny", freeze_encoder=False)
    groups = parameter_groups(model, train_clip.encoder_rate({"encoder": encoder}), 1.0)
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert {rates[id(parameter)] for parameter in model.encoder.parameters()} == {rate}
    assert {rates[id(parameter)] for parameter in model.head.parameters()} == {1.0}


def test_the_first_blocks_of_an_encoder_change_least():
    model = CLIPCNN("tiny", freeze_encoder=False)
    groups = parameter_groups(model, 0.1, 0.5)
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    names = {name: rates[id(parameter)] for name, parameter in model.encoder.named_parameters()}
    blocks = [{rate for name, rate in names.items() if f"layers.{block}." in name} for block in range(3)]
    assert blocks == [{0.025}, {0.05}, {0.1}]
    assert {rate for name, rate in names.items() if "embeddings" in name} == {0.0125}
