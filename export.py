"""Write a trained model as ONNX, to be run without PyTorch: by onnxruntime, in a browser, on a phone.

    pip install -r requirements-export.txt
    python export.py --MODEL=clip --OUT=clip.onnx               # half a minute; unet and autoencoder likewise
    python export.py --MODEL=pointclip --OUT=pointclip.onnx     # pointclip_encoder.onnx and pointclip_decoder.onnx
    python export.py --MODEL=clip --INT8=True --SCORE=test   # a quarter of the size; its mIoU: results/export.csv

The file takes a picture as it is and gives the ids of predict.py at the picture's size:

    picture        uint8 (batch, height, width, 3), RGB
    ids            uint8 (batch, height, width)
    probabilities  float32 (batch, classes, height, width)

Row, classes, colours and image_size are in the file's metadata, each as JSON. No file looks closer at what it found, as
predict.py does with rows that have zoom by encoding the window around it as a picture of its own. PointCLIP becomes two
files: the encoder runs once per picture, the decoder once per click:

    import numpy as np
    import onnxruntime
    from PIL import Image

    encoder = onnxruntime.InferenceSession("pointclip_encoder.onnx")
    decoder = onnxruntime.InferenceSession("pointclip_decoder.onnx")
    picture = np.array(Image.open("photo.jpg").convert("RGB"))[None]  # uint8 (1, height, width, 3)
    names = [output.name for output in encoder.get_outputs()]
    inputs = dict(zip(names, encoder.run(None, {"picture": picture})))  # feature maps, finest first
    inputs["size"] = np.array(picture.shape[1:3], np.int64)
    inputs["previous"] = np.zeros_like(inputs["features_0"][:, :1])  # nothing is known before the first click
    clicks = []
    for click in [(210, 140, 1), (30, 40, 0)]:  # x and y in pixels; 1 on the thing, 0 on the rest
        clicks.append(click)
        inputs["clicks"] = np.array([clicks], np.float32)  # (1, K, 3): all clicks so far
        mask, probabilities, inputs["previous"] = decoder.run(None, inputs)  # the first two (1, height, width)
    Image.fromarray(mask[0]).save("mask.png")
"""

from contextlib import ExitStack
from pathlib import Path

from utils.config import DATA, run_script

import torch
from tqdm import tqdm

from utils.errors import UserError
from utils.files import replacing
from utils.inputs.layouts import data_name, list_samples
from utils.inputs.pictures import read_sample
from utils.metrics import confusion_matrix, scores
from utils.rows import find_rows, load_row, row_named
from utils.rows.onnx_graphs import class_graph, click_graphs, to_int8, to_onnx
from utils.rows.row import Row
from utils.scoring.results import merge_lines
from utils.tables import markdown_table, write_between_markers

MODEL = "unet"  # any row of the table by class or by click, e.g. "unet", "autoencoder", "clip", "pointclip"
OUT = ""  # file; empty: MODEL.onnx
INT8 = False  # weights of convolutions and matrix products in 8 bits: a quarter of the size
CHECKPOINTS = "checkpoints"  # where the training scripts wrote
# what the file is worth
SCORE = ""  # a split, e.g. "test": run the file of a row by class on it and write results/export.csv
DATA_ROOT = DATA  # any layout of data/README.md
RESULTS = "results"
README = ""  # file whose table between the export markers is written anew


def main() -> None:
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error.name} is missing: pip install -r requirements-export.txt") from error
    name = row_named(MODEL, CHECKPOINTS)
    if find_rows(CHECKPOINTS)[name].kind.prompt == "text":
        raise UserError(
            f"{name} cannot be exported: its classes are texts, and a tokenizer is no part of an ONNX graph"
        )
    row = load_row(name, CHECKPOINTS, torch.device("cpu"))
    if SCORE and row.prompt:
        raise UserError(f"SCORE = {SCORE!r}: {row.name} needs a {row.prompt}; only rows by class are scored")
    graphs = click_graphs(row) if row.prompt else {"": class_graph(row)}
    metadata = {"row": row.name, "image_size": row.image_size, "classes": row.counted}
    if row.counted == row.classes.names:
        metadata["colours"] = row.classes.colours
    out = Path(OUT or f"{MODEL}.onnx")
    files = {out.with_stem(out.stem + part): to_onnx(graph, metadata) for part, graph in graphs.items()}
    if INT8:
        files = {path: to_int8(data) for path, data in files.items()}
    with ExitStack() as stack:  # all are written before the first takes its place
        for path, data in files.items():
            stack.enter_context(replacing(path)).write_bytes(data)
    sizes = " and ".join(f"{path} ({len(data) / 1e6:.1f} MB)" for path, data in files.items())
    print(f"wrote {sizes}: {', '.join(metadata['classes'])}; `python export.py --help` says how to use it")
    if SCORE:
        score(out, row)


def score(path: Path, row: Row) -> None:
    """A line of results/export.csv: the mIoU of a file on the split SCORE, with onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    samples = list_samples(DATA_ROOT, SCORE)
    confusions = torch.zeros(len(samples), len(row.classes), len(row.classes), dtype=torch.int64)
    for index, sample in enumerate(tqdm(samples, str(path), unit="img", leave=False, disable=None)):
        image, mask = read_sample(sample)
        (ids,) = session.run(["ids"], {"picture": image[None]})
        confusions[index] = confusion_matrix(torch.from_numpy(mask), torch.from_numpy(ids[0]), len(row.classes))
    miou = f"{scores(confusions, row.counted)['miou']:.4f}"
    line = {"model": row.name, "weights": "int8" if INT8 else "fp32", "data": data_name(DATA_ROOT), "split": SCORE}
    line |= {"images": str(len(samples)), "miou": miou, "megabytes": f"{path.stat().st_size / 1e6:.1f}"}
    table = Path(RESULTS) / "export.csv"
    lines = merge_lines([line], table, list(find_rows(CHECKPOINTS)), ("model", "weights", "data", "split"))
    if README:
        write_between_markers(README, {"export": markdown_table({key: key for key in lines[0]}, lines, 4)})
    print(f"{path}: mIoU {miou} on {SCORE}; wrote {table}")


if __name__ == "__main__":
    run_script(main)
