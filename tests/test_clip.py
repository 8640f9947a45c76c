"""The image encoder against transformers, the decoder, and train_clip.py from end to end."""

import pytest
import torch
import transformers
from conftest import TOWER, run_here

import evaluate
import train_clip
from models.clip import CLIPCNN, ImageEncoder
from utils.checkpoint import load
from utils.errors import UserError
from utils.rows import load_row

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


def test_layers_are_a_choice_and_unknown_ones_and_sizes_beside_the_patches_are_refused():
    assert ImageEncoder(tiny_vit("vit"), layers=(1, 6)).channels == 32
    with pytest.raises(ValueError, match="blocks 1 to 6"):
        ImageEncoder(tiny_vit("vit"), layers=(7,))
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


def test_a_network_that_is_no_vision_transformer_is_refused(tmp_path):
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4)
    transformers.ResNetModel(config).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "ConvNextImageProcessor"}')
    with pytest.raises(OSError, match="a resnet is no vision transformer"):
        ImageEncoder.from_pretrained(str(tmp_path))


SMALL = ("--IMAGE_SIZE=32", "--EPOCHS=2", "--BATCH_SIZE=8", "--WIDTHS=4,8,8,16", "--CHECKPOINTS=runs")


@pytest.mark.slow
def test_training_keeps_the_encoder_out_of_the_checkpoint_and_the_other_scripts_read_it(
    oxford_root, tiny_clip_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    encoder = tmp_path / "encoder"
    encoder.symlink_to(tiny_clip_folder)
    data = f"--DATA_ROOT={oxford_root}"
    run_here(train_clip, data, f"--ENCODER={encoder}", *SMALL)
    content = load("runs/clip/best.safetensors")
    assert content["arguments"]["encoder"] == str(encoder)
    assert content["weights"] and not any(name.startswith("encoder.") for name in content["weights"])
    assert len((tmp_path / "runs" / "clip" / "log.csv").read_text().splitlines()) == 3
    run_here(evaluate, data, "--CHECKPOINTS=runs", "--ROWS=UNET,CLIP")
    assert "train_unet.py" in capsys.readouterr().out and (tmp_path / "results" / "results.csv").is_file()
    encoder.unlink()
    with pytest.raises(UserError, match=f"needs its encoder: .*{encoder}"):
        load_row("CLIP", "runs", CPU)


def test_an_encoder_that_cannot_be_had_stops_the_run(oxford_root, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="(?s)ENCODER = .*no/such-encoder.*HF_HOME.*--local-dir"):
        run_here(train_clip, f"--DATA_ROOT={oxford_root}", "--ENCODER=no/such-encoder", *SMALL)


def test_encoder_and_decoder_learn_at_their_own_rates(oxford_root, tiny_clip_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fine = (f"--ENCODER={tiny_clip_folder}", "--FREEZE_ENCODER=False", "--ENCODER_RATE=0.5", "--LEARNING_RATE=1e-3")
    run_here(train_clip, f"--DATA_ROOT={oxford_root}", *SMALL, *fine, "--EPOCHS=1")
    saved, counts = load("runs/clip/last.pt"), {}
    for group in saved["optimizer"]["param_groups"]:
        counts[group["initial_lr"]] = counts.get(group["initial_lr"], 0) + len(group["params"])
    model = CLIPCNN(**saved["arguments"])
    encoder, total = (len(list(part.parameters())) for part in (model.encoder, model))
    assert counts == {5e-4: encoder, 1e-3: total - encoder}
