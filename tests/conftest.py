"""What several test files share: a tiny data set, running a script, the real data where there is some."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from utils import device

REPOSITORY = Path(__file__).parent.parent
if (REPOSITORY.parent / "shared" / "hf_home").is_dir():  # encoders; before anything imports the hub's library
    os.environ.setdefault("HF_HOME", str(REPOSITORY.parent / "shared" / "hf_home"))
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 6, "num_attention_heads": 2}
TOWER = {**SIZES, "image_size": 32, "patch_size": 8}  # of a tiny vision transformer

# AUTO_PRECISION in the environment, "bf16" or "fp32": what "auto" means in the tests, whatever the CPU multiplies
if wanted := os.environ.get("AUTO_PRECISION"):
    device._cpu_multiplies_bf16 = lambda: wanted == "bf16"
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of scripts


@pytest.fixture(scope="session")
def oxford_root(tmp_path_factory) -> Path:
    """A data set in the Oxford layout: 24 + 8 pictures of 40 to 60 pixels, to be read only.

    A reddish blob is a cat, a greenish one a dog, both on grey noise, so that a tiny model can learn it. The
    names sort in the order of the lists: twelve cats, then twelve dogs; validation gets cats 1, 11 and dog 9.
    """
    root = tmp_path_factory.mktemp("oxford")
    (root / "images").mkdir()
    (root / "annotations" / "trimaps").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for split, count in (("trainval", 12), ("test", 4)):
        names = [(breed, f"{breed}_{split}_{i:02d}") for breed in ("Birman", "pug") for i in range(count)]
        for breed, name in names:
            picture, trimap = _draw(generator, (170, 60, 50) if breed == "Birman" else (60, 170, 50))
            Image.fromarray(picture).save(root / "images" / f"{name}.jpg", quality=95)
            Image.fromarray(trimap).save(root / "annotations" / "trimaps" / f"{name}.png")
        lines = [f"{name} {1 if breed == 'Birman' else 2} {1 if breed == 'Birman' else 2} 1\n" for breed, name in names]
        (root / "annotations" / f"{split}.txt").write_text("".join(lines))
    return root


def _draw(generator: np.random.Generator, colour: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """One elliptic animal: picture (H, W, 3) and trimap (H, W), 1 pet, 2 background, 3 boundary; uint8."""
    height, width = generator.integers(40, 61, 2)
    rows, columns = np.mgrid[:height, :width]
    centre = generator.uniform(0.4, 0.6, 2) * (height, width)
    radius = generator.uniform(0.2, 0.35, 2) * (height, width)
    distance = np.hypot((rows - centre[0]) / radius[0], (columns - centre[1]) / radius[1])
    picture = np.where(distance[..., None] < 1, colour, 120) + generator.normal(0, 12, (height, width, 3))
    trimap = np.select([distance < 0.9, distance < 1.1], [1, 3], 2)
    return picture.clip(0, 255).astype(np.uint8), trimap.astype(np.uint8)


@pytest.fixture(scope="session")
def tiny_clip_folder(tmp_path_factory):
    """A folder with random weights as the hub holds them: both towers of CLIP, and the preprocessor's file."""
    import transformers

    folder = tmp_path_factory.mktemp("tiny-clip")
    config = transformers.CLIPConfig(vision_config=TOWER, text_config=SIZES, projection_dim=8)
    torch.manual_seed(1)  # experiments/compare.py draws its random encoder with 0
    transformers.CLIPModel(config).save_pretrained(folder)
    transformers.CLIPImageProcessor(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.25]).save_pretrained(folder)
    return folder


@pytest.fixture
def oxford_copy(oxford_root, tmp_path) -> Path:
    """A copy of oxford_root without a cache, for tests that change or damage it."""
    return shutil.copytree(oxford_root, tmp_path / "pets", ignore=shutil.ignore_patterns(".cache"))


@pytest.fixture(scope="session")
def pets_root() -> Path:
    """The real data set: PETS_ROOT, or ../shared/pets; the test is skipped where there is none."""
    root = Path(os.environ.get("PETS_ROOT", REPOSITORY.parent / "shared" / "pets"))
    if not (root / "annotations" / "test.txt").is_file():
        pytest.skip(f"Oxford-IIIT Pet is not in {root}; set PETS_ROOT")
    return root


def script_environment(**extra: str) -> dict[str, str]:
    """The environment of a script under test: no GPU, no PETS_ROOT, the repository's modules."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PETS_ROOT", "WORLD_SIZE", "RANK")}
    return {**kept, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPOSITORY), **extra}


def readme_code(title: str) -> list[str]:
    """The code blocks of a section of the README."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    body = text.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return re.findall(r"```\w*\n(.*?)```", body, re.DOTALL)


def run_here(script: ModuleType, *arguments: object) -> int | None:
    """Run a script in this process, which saves the start of another; returns its exit status."""
    from experiments.compare import run_main  # here: HF_HOME is set first

    return run_main(script.main, list(map(str, arguments)), positional="any")


@pytest.fixture(scope="session")
def trained(oxford_root, tmp_path_factory) -> Path:
    """A folder of checkpoints, to be read only: a tiny U-Net that has learned something, and a tiny PointCLIP."""
    import train_pointclip
    import train_unet

    folder = tmp_path_factory.mktemp("trained") / "checkpoints"
    same = (f"--DATA_ROOT={oxford_root}", f"--CHECKPOINTS={folder}", "--IMAGE_SIZE=32", "--EMA_DECAY=0.9")
    unet = ("--SMALL_SIZE=32", "--WIDTH=8", "--DEPTH=3", "--EPOCHS=25", "--BATCH_SIZE=7", "--VALIDATE_EVERY=5")
    run_here(train_unet, *same, *unet)
    small = ("--ENCODER=tiny", "--WIDTHS=8,8,8,16", "--VIEW_SIZE=32", "--EPOCHS=10", "--BATCH_SIZE=8")
    run_here(train_pointclip, *same, *small, "--SCALE=1,1", "--PASTE=0", "--LEARNING_RATE=3e-3")
    return folder


def start(
    script: str | Path, arguments: Iterable[object], cwd: Path, env: dict[str, str], timeout: float = 600
) -> subprocess.CompletedProcess:
    """`python script arguments`; a script without .py is a module, `python -m script`."""
    command = [sys.executable, *(() if str(script).endswith(".py") else ("-m",)), *map(str, (script, *arguments))]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout)


@pytest.fixture
def train_and_use(tmp_path, monkeypatch, capsys) -> Callable[[Path], tuple[dict[str, str], str]]:
    """train_and_use(root): the road after prepare.py: two epochs, evaluate, predict; a line of results.csv, a text."""
    import evaluate
    import predict
    import train_unet
    from utils.files import read_csv

    def run(root: Path) -> tuple[dict[str, str], str]:
        monkeypatch.chdir(tmp_path)
        data = f"--DATA_ROOT={root}"
        small = ("--IMAGE_SIZE=32", "--SMALL_SIZE=32", "--WIDTH=4", "--DEPTH=2", "--EPOCHS=2", "--BATCH_SIZE=2")
        run_here(train_unet, data, *small)
        run_here(evaluate, data, "--ROWS=UNET")
        capsys.readouterr()
        run_here(predict, str(next((Path(root) / "test" / "images").iterdir())))
        return read_csv("results/results.csv")[0], capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium, for the pages."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("the browser tests need chromium: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()
