"""The mean of the weights of trainings that began alike (model soups, Wortsman et al., ICML 2022), scored anew.

    python -m utils.scoring.averaging checkpoints/clip_finetuned/best.safetensors first.safetensors second.safetensors

The second and further files are checkpoints of one row, trained from the same START with other settings. The mean
replaces the file named first once it is scored; its constants are those of the first training. A row with a pretrained
encoder gets a new layer for its closer look.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from utils.config import DATA, run_script

import torch

from utils.checkpoint import halve, load, save
from utils.device import pick_device
from utils.errors import UserError
from utils.inputs.dataset import SegmentationDataset
from utils.rows import ROWS, load_model
from utils.scoring.by_class import ByClass, validate
from utils.scoring.naming import LAYER, add_closer_look

DATA_ROOT = DATA  # any layout of data/README.md
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"


def main(arguments: list[str]) -> None:
    if len(arguments) < 3:
        raise UserError("name the file to write and two or more checkpoints to average")
    out, *sources = map(Path, arguments)
    if out.suffix != ".safetensors":
        raise UserError(f"{out}: the file to write is best.safetensors in a row's folder")
    device, content = pick_device(DEVICE), average(sources)
    val = SegmentationDataset(DATA_ROOT, "val", content["image_size"])
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent) as folder:
        path = Path(folder) / out.name
        save(content, path)
        model, _ = load_model(path, content["model"], device)
        if hasattr(model, "add_names"):  # scores it too
            train = SegmentationDataset(DATA_ROOT, "train", content["constants"]["IMAGE_SIZE"])
            add_closer_look(path, train, val, device)
        else:
            content["score"] = validate(model, val, device, content["mean"], content["std"])["score"]
            save(content, path)
        path.replace(out)
    print(f"wrote {out}: score of the mean {load(out)['score']:.4f}")


def average(paths: list[Path]) -> dict:
    """The content of the first checkpoint with the mean of all weights. Raises UserError if they do not fit."""
    contents, kinds = [load(path) for path in paths], {row.file: row.kind for row in ROWS}
    if kinds.get(contents[0].get("model")) is not ByClass:
        raise UserError(f"{paths[0]} holds no row by class, whose mean could be scored here")
    described = []
    for path, content in zip(paths, contents, strict=True):
        content["arguments"].pop("name_parts", None)  # such a layer fits its own encoder alone
        content["weights"] = {name: x for name, x in content["weights"].items() if not name.startswith(LAYER)}
        shapes = {name: x.shape for name, x in content["weights"].items()}
        described.append((content["model"], content["classes"], shapes))
        if described[-1] != described[0]:
            raise UserError(f"{path} holds another model than {paths[0]}: only trainings of one model can be averaged")
    weights = {
        name: torch.stack([content["weights"][name].float() for content in contents]).mean(0).to(value.dtype)
        for name, value in contents[0]["weights"].items()
    }
    constants = [content["constants"] for content in contents]
    return {**contents[0], "weights": halve(weights), "zoom": False, "averaged": constants}


if __name__ == "__main__":
    run_script(main, positional="the file to write, and two or more checkpoints")
