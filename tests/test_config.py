"""Constants of a script: which names they are, and overriding them by a recipe and from the command line."""

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from conftest import REPOSITORY, script_environment

import train_clip
import train_unet
from experiments.compare import run_main
from utils import config
from utils.device import autocast, pick_device
from utils.errors import UserError

SOURCE = '''"""Train a thing.

    python thing.py
"""

from math import pi as PI
from string import ascii_letters as LETTERS

# data
ROOT = "data/pets"  # where the pictures are
# optimisation
EPOCHS = 90  # lower it when in a hurry
RATE = 2e-3
SCALE = (0.7, 1.8)  # magnification
LAYERS = (3, 6)
NAMES = ("cat", "dog")
FILES = []  # may be given several times
PROMPTS = ["a cat"]
RESUME = False

MEAN, STD = (0.5, 0.5), (0.2, 0.2)
lower = 1


def main():
    LOCAL = 1
    return LOCAL
'''
CONSTANTS = ["ROOT", "EPOCHS", "RATE", "SCALE", "LAYERS", "NAMES", "FILES", "PROMPTS", "RESUME"]


@pytest.fixture
def namespace() -> dict:
    namespace = {}
    exec(SOURCE, namespace)  # what Python does when it runs the script
    return namespace


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("--ROOT=/tmp/my pets", "/tmp/my pets"),
        ("--ROOT=a=b", "a=b"),
        ("--EPOCHS=3", 3),
        ("--RATE=1", 1.0),
        ("--SCALE=0.5,2", (0.5, 2.0)),
        ("--LAYERS=1,2,3", (1, 2, 3)),
        ("--NAMES=a cat,a dog", ("a cat", "a dog")),
        ("--RESUME=True", True),
    ],
)
def test_a_value_is_read_as_the_type_of_the_default(namespace, argument, value):
    key = argument[2:].partition("=")[0]
    others = {name: namespace[name] for name in CONSTANTS if name != key}
    assert config.override(namespace, SOURCE, [argument]) == []
    assert namespace[key] == value and type(namespace[key]) is type(value)
    assert {name: namespace[name] for name in others} == others


def test_a_list_takes_every_repetition_of_other_values_the_last_counts_and_the_rest_are_arguments(namespace):
    default = namespace["PROMPTS"]
    given = ["a.jpg", "--PROMPTS=one", "--EPOCHS=2", "--PROMPTS=two", "b.jpg", "--EPOCHS=5"]
    assert config.override(namespace, SOURCE, given, positional="PICTURE ...") == ["a.jpg", "b.jpg"]
    assert namespace["PROMPTS"] == ["one", "two"] and namespace["EPOCHS"] == 5
    assert default == ["a cat"]


@pytest.mark.parametrize(("value", "expected"), [("", "data/pets"), ("my/pets", "my/pets"), (None, "data/pets")])
def test_an_empty_pets_root_is_none(monkeypatch, value, expected):
    monkeypatch.delenv("PETS_ROOT", raising=False)
    if value is not None:
        monkeypatch.setenv("PETS_ROOT", value)
    assert runpy.run_path(config.__file__)["DATA"] == expected


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("--EPOCHS=many", "expected int, like --EPOCHS=90"),
        ("--RESUME=yes", "expected True or False, like --RESUME=False"),
        ("--SCALE=0.5;2", "expected tuple, like --SCALE=0.7,1.8"),
    ],
)
def test_a_value_of_another_type_is_refused_with_an_example(namespace, argument, expected):
    before = {name: namespace[name] for name in CONSTANTS}
    with pytest.raises(UserError, match=f"^{re.escape(argument)}: {re.escape(expected)}"):
        config.override(namespace, SOURCE, [argument])
    assert {name: namespace[name] for name in CONSTANTS} == before


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--EPOCH=3", "did you mean --EPOCHS"),
        ("--PI=3", "unknown constant --PI"),
        ("--LOCAL=2", "unknown constant --LOCAL"),
        ("--SCALE", "--SCALE needs a value: --SCALE=0.7,1.8"),
        ("cat.jpg", "unexpected argument 'cat.jpg'; constants are set as --KEY=value"),
    ],
)
def test_what_is_no_constant_with_a_value_is_refused_with_what_may_be_meant(namespace, argument, message):
    with pytest.raises(UserError, match=re.escape(message)):
        config.override(namespace, SOURCE, [argument])


def test_constants_are_the_names_assigned_at_the_top_of_the_script(monkeypatch):
    monkeypatch.setattr(train_unet, "EPOCHS", 3)
    values = config.script_constants(train_unet.main)
    assert values["EPOCHS"] == 3 and values["SCALE"] == train_unet.SCALE
    assert not {"IMAGENET_MEAN", "IMAGENET_STD", "RECIPE"} & set(values)  # imported, or none


# ------------------------------------------------------------------------------------------------- recipes


@pytest.fixture
def recipe(tmp_path) -> Callable[[str], str]:
    """recipe(text): the path of a file with it."""
    path = tmp_path / "quick.py"
    return lambda text: path.write_text(text) and str(path)


def test_a_recipe_beats_the_script_and_the_command_line_beats_the_recipe(namespace, recipe):
    path = recipe('"""Quick."""\n\nEPOCHS = 3  # few\nRATE = 1\nSCALE = (0.5, 2.0)\nRESUME = True\nROOT = "a"\n')
    assert config.override(namespace, SOURCE, ["--EPOCHS=5", path, "--ROOT=b"]) == []
    assert (namespace["EPOCHS"], namespace["ROOT"]) == (5, "b")
    assert (namespace["RATE"], namespace["SCALE"], namespace["RESUME"]) == (1, (0.5, 2.0), True)
    assert (namespace["RECIPE"], namespace["LAYERS"]) == ("quick", (3, 6))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("EPOCH = 3", "EPOCH is no constant of this script"),
        ("EPOCHS = 0.5", "EPOCHS = 0.5, expected int, like 90"),
        ("RATE = True", "RATE = True, expected float, like 0.002"),
        ("SCALE = (0.5, '2')", "SCALE = (0.5, '2'), expected tuple, like (0.7, 1.8)"),
        ("EPOCHS = 3\nopen(MARK, 'w')", "a recipe is lines of NAME = value, and nothing else"),
        ("EPOCHS = open(MARK, 'w')", "a recipe is lines of NAME = value, and nothing else"),
    ],
)
def test_what_is_no_recipe_of_this_script_is_refused_and_nothing_of_it_is_run(
    namespace, recipe, tmp_path, text, message
):
    path = recipe(text.replace("MARK", repr(str(tmp_path / "mark"))))
    with pytest.raises(UserError, match=f"^{re.escape(path)}: {re.escape(message)}"):
        config.override(namespace, SOURCE, [path])
    assert namespace["EPOCHS"] == 90 and not (tmp_path / "mark").exists()


def test_a_script_runs_with_a_recipe_whose_name_is_among_its_constants(recipe, monkeypatch):
    seen = []
    monkeypatch.setattr(train_unet, "main", lambda: seen.append(config.script_constants(train_unet.main)))
    train_unet.main.__module__ = train_unet.__name__
    run_main(train_unet.main, [recipe("EPOCHS = 3"), "--SEED=1"])
    run_main(train_unet.main, [])
    assert (seen[0]["RECIPE"], seen[0]["EPOCHS"], seen[0]["SEED"]) == ("quick", 3, 1)
    assert "RECIPE" not in seen[1] and seen[1]["EPOCHS"] == train_unet.EPOCHS


@pytest.mark.parametrize("path", sorted((REPOSITORY / "recipes").glob("*.py")), ids=lambda path: path.stem)
def test_the_recipes_that_come_with_the_project_fit_their_script(path):
    assert config.read_recipe(path, config.script_constants(train_clip.main))


def test_help_prints_docstring_values_and_remarks_and_exits_with_status_0(namespace, capsys):
    with pytest.raises(SystemExit) as stop:
        config.override(namespace, SOURCE, ["--EPOCHS=7", "--help"], positional="PICTURE ...")
    assert stop.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Train a thing." and "Arguments: PICTURE ..." in lines
    options = [re.split(r"\s{2,}", line.strip()) for line in lines if line.startswith("  --")]
    assert [option[0].partition("=")[0][2:] for option in options] == CONSTANTS
    assert ["--EPOCHS=7", "lower it when in a hurry"] in options
    assert ["--SCALE=0.7,1.8", "magnification"] in options
    assert ["--RATE=0.002"] in options


@pytest.mark.parametrize("script", [*sorted(path.name for path in REPOSITORY.glob("*.py")), "data/prepare.py"])
def test_without_torch_a_script_says_how_to_install_it(script):
    command = [sys.executable, "-S", REPOSITORY / script]  # without the packages
    done = subprocess.run(command, env=script_environment(), capture_output=True, text=True)
    assert done.returncode == 1 and "pip install -r requirements.txt" in done.stderr
    assert "torch" in done.stderr and "Traceback" not in done.stderr


def test_a_gpu_without_a_number_is_the_first_and_its_fp32_is_not_tf32(monkeypatch):
    chosen, before = [], torch.get_float32_matmul_precision()
    monkeypatch.setattr(torch, "empty", lambda *size, device: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for module, name in ((torch.backends.cudnn, "allow_tf32"), (torch.backends.cudnn, "benchmark")):
        monkeypatch.setattr(module, name, getattr(module, name))
    torch.set_float32_matmul_precision("high")  # as TORCH_ALLOW_TF32_CUBLAS_OVERRIDE does
    torch.backends.cudnn.allow_tf32 = True
    try:
        assert pick_device("cuda") == torch.device("cuda") and pick_device("cuda:1") == torch.device("cuda:1")
        assert chosen == [0, 1]
        assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("name", ["mps", "meta", "cuda:9", "cuda:256", "cuda:-1", "cpu:3", "tpu", ""])
def test_a_device_that_cannot_be_used_is_refused_in_one_short_line(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match="^DEVICE = ") as raised:
        pick_device(name)
    assert f'"{name}"' in str(raised.value) and "auto" in str(raised.value)
    assert len(str(raised.value)) < 120 and "\n" not in str(raised.value)


real = pytest.mark.skipif(bool(os.environ.get("AUTO_PRECISION")), reason="AUTO_PRECISION says what auto means")


@real
@pytest.mark.parametrize("hardware", [True, False])
def test_bf16_is_only_used_where_the_hardware_multiplies_it(hardware, monkeypatch):
    """PyTorch emulates it too: on x86 with AVX512 alone, and on GPUs before Ampere."""
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: hardware)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: hardware | including_emulation
    )
    monkeypatch.setattr(torch, "autocast", lambda kind, dtype, enabled, **_: (kind, enabled))  # there may be no GPU
    for kind in ("cpu", "cuda"):
        assert autocast(torch.device(kind), "auto") == (kind, hardware)
        assert autocast(torch.device(kind), "bf16") == (kind, True)
        assert autocast(torch.device(kind), "fp32") == (kind, False)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("--ROOT=~/a", "{home}/a"),
        ("--ROOT=./~/a", "./~/a"),
        ("--ROOT=~nobody-of-this-name/a", "~nobody-of-this-name/a"),
        ("--NAMES=~/a,b,~/c", ("{home}/a", "b", "{home}/c")),
        ("--FILES=~/a", ["{home}/a"]),
    ],
)
def test_a_tilde_is_the_home_folder_in_every_path(namespace, monkeypatch, tmp_path, argument, value):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    namespace["PROMPTS"] = ["~/mine"]  # edited in the script
    assert config.override(namespace, SOURCE, [argument, "~/b.jpg"], "PICTURE") == [f"{tmp_path}/b.jpg"]
    assert repr(namespace[argument[2:].partition("=")[0]]) == repr(value).replace("{home}", str(tmp_path))
    assert namespace["PROMPTS"] == [f"{tmp_path}/mine"] and namespace["EPOCHS"] == 90


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("no data set in data/pets"), "error: no data set in data/pets"),
        (OSError(36, "File name too long", "a" * 300), f"error: {'a' * 300}: File name too long"),
    ],
)
def test_a_script_ends_with_one_message(monkeypatch, error, message):
    def main():
        raise error

    main.__module__ = train_unet.__name__
    monkeypatch.setattr(config, "stop_on_signals", lambda: None)
    monkeypatch.setattr(config, "forgive_output", lambda: None)
    monkeypatch.setattr(sys, "argv", ["train_unet.py"])
    with pytest.raises(SystemExit) as stop:
        config.run_script(main)
    assert str(stop.value) == message
