"""The training loop that every script uses: epochs, EMA, checkpoints, exact resume."""

import itertools
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from utils.config import require_between, require_choice, require_positive, require_range

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import BatchSampler, Dataset
from tqdm import tqdm

from utils import checkpoint
from utils.classes import Classes, require_same
from utils.device import PRECISIONS, autocast
from utils.errors import UserError
from utils.files import write_csv
from utils.inputs.augment import EDGES

POSITIVE = (
    *("EPOCHS", "BATCH_SIZE", "LEARNING_RATE", "CLIP_NORM", "VALIDATE_EVERY", "IMAGE_SIZE", "SMALL_SIZE", "PATCH"),
    *("WIDTH", "DEPTH", "MAX_WIDTH", "BLOCKS", "STEM_STRIDE", "LABELS_PERCENT", "ENCODER_RATE", "CLICK_RADIUS"),
)
SHARES = ("WARMUP", "EMA_DECAY", "SMALL_SHARE", "DROPOUT", "COLOUR", "ERASE", "PASTE", "EDITED")
NOT_NEGATIVE = ("WEIGHT_DECAY", "SEED", "VIEW_SIZE", "EPOCH_STEPS")
# A resumed run may change these constants.
FREE = "RESUME RECIPE ROW START ENCODER DATA_ROOT CHECKPOINTS DEVICE PRECISION VALIDATE_EVERY".split()
FILES = ("best.safetensors", "last.pt", "log.csv", "curves.png", "progress.png")  # of a run
# (model, batch, CPU generator for augmentation, share of the training done) -> scalar loss
ComputeLoss = Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Generator, float], torch.Tensor]


class Settings(SimpleNamespace):
    """A script's constants in lower case, such as settings.epochs; settings.constants: the dict for checkpoints."""

    @classmethod
    def of(cls, constants: dict, **other: int) -> "Settings":
        """other: values that replace the script's, e.g. epochs=5. Raises UserError for a value out of range."""
        constants = constants | {name.upper(): value for name, value in other.items()}
        require_positive(constants, *filter(constants.__contains__, POSITIVE))
        require_between(constants, 0, 1, *filter(constants.__contains__, SHARES))
        require_between(constants, 0, math.inf, *filter(constants.__contains__, NOT_NEGATIVE))
        require_range("SCALE", constants["SCALE"])
        if len(constants.get("WIDTHS", (1, 1))) < 2:
            raise UserError(f"WIDTHS = {constants['WIDTHS']}: must be at least two numbers, such as 16,48,96,192")
        require_choice("EDGE", constants.get("EDGE", EDGES[0]), EDGES)
        require_choice("TRAIN_SPLIT", constants["TRAIN_SPLIT"], ("train", "trainval"))
        require_choice("PRECISION", constants["PRECISION"], PRECISIONS)
        return cls(constants=constants, **{name.lower(): value for name, value in constants.items()})


def fit(
    row: Any,
    dataset: Dataset,
    compute_loss: ComputeLoss,
    val: Sequence,
    *,
    folder: str | Path,
    about: dict,
    settings: Settings,
    report: Callable[[list[dict], Any, Sequence, Path], None],
    rates: dict[str, float] | None = None,
) -> Path:
    """Train a row's model on its device and return the path of the best weights, folder/best.safetensors.

    row: a Row of utils.rows, or a dataclass with its model, device, image_size, mean, std, classes and validate().
    dataset: dataset[[i, j, ...]] is a batch, a tuple of tensors.
    val: row.validate(val) scores the averaged model (EMA) every VALIDATE_EVERY epochs; higher "score" is better.
    about: stored in both checkpoints: model, arguments, minutes of an earlier stage, ...; with the argument
        freeze_encoder the weights of model.encoder are not. The row's normalisation and classes are stored too.
    report: called after every validation with the log, a line per validation, the averaged row, val and folder.
    rates: module of the model -> its learning rate, as a fraction of LEARNING_RATE; default 1.

    A run resumes at its last validation: all random numbers follow from SEED and the epoch, so interrupted epochs are
    run again with the same losses. Raises UserError for a loss or score that is not finite.
    """
    folder, model, device = Path(folder), row.model, row.device
    about = {**about, "image_size": row.image_size, "mean": row.mean, "std": row.std}
    about |= {"classes": row.classes.names, "colours": row.classes.colours}
    about |= {"training pictures": len(dataset), "validation pictures": len(val)}
    with _only_run_in(folder):
        model.to(device, memory_format=torch.channels_last)
        optimizer = _adamw(model, rates or {}, settings)
        steps = settings.epochs * len(_batches(len(dataset), settings, 0))
        schedule = _warmup_cosine(optimizer, steps, settings.warmup)
        run = _Run(model, _averaged(model, settings.ema_decay), optimizer, schedule, minutes=about.get("minutes", 0.0))
        if settings.resume:
            _resume(run, folder / "last.pt", about, row.classes, settings)
        else:
            _set_aside(folder)
        print(*(f"{key}={value!r}" for key, value in settings.constants.items()), sep="  ")
        count = sum(p.numel() for p in model.parameters() if p.requires_grad)
        print(f"{count:,} parameters to train, {len(dataset):,} pictures, on {device}", flush=True)
        began = time.perf_counter() - 60 * run.minutes

        while run.epoch < settings.epochs:
            started = time.perf_counter()
            try:
                loss = _train_epoch(run, dataset, compute_loss, settings, device)
            except ValueError as error:
                if "more than 1 value per channel" not in str(error):  # torch's words
                    raise
                change = "raise BATCH_SIZE, or raise IMAGE_SIZE and SMALL_SIZE"
                raise UserError(f"batch norm got a single value per channel at the coarsest level: {change}") from error
            seconds, rate = time.perf_counter() - started, max(run.schedule.get_last_lr())
            run.epoch += 1
            if run.epoch % settings.validate_every and run.epoch < settings.epochs:
                continue
            averaged = replace(row, model=run.ema.module.eval())
            metrics = averaged.validate(val)
            _require_finite("validation score", metrics["score"], run.epoch, settings)
            run.log.append({"epoch": run.epoch, "loss": loss, **metrics, "lr": rate, "seconds": seconds})
            run.minutes = (time.perf_counter() - began) / 60
            about |= {"constants": settings.constants, "epoch": run.epoch, "minutes": run.minutes}
            _save(run, folder, about, metrics["score"])
            report(run.log, averaged, val, folder)
        best = folder / FILES[0]
        checkpoint.save({**checkpoint.load(best), "minutes": run.minutes}, best)  # of the whole training
        print(f"best score {run.best:.4f}; checkpoint: {best}, curves: {folder / 'curves.png'}")
    return best


@dataclass
class _Run:
    """State of a training run."""

    model: nn.Module
    ema: AveragedModel
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    epoch: int = 0  # epochs done
    minutes: float = 0.0  # of training and validation so far
    best: float = -math.inf
    log: list[dict] = field(default_factory=list)  # a line per validation


def _train_epoch(
    run: _Run, dataset: Dataset, compute_loss: ComputeLoss, settings: Settings, device: torch.device
) -> float:
    """One epoch. Returns the mean loss."""
    seed, epochs, precision = settings.seed, settings.epochs, autocast(device, settings.precision)
    torch.manual_seed(_mix(seed, run.epoch))
    batches = _batches(len(dataset), settings, _mix(seed, run.epoch))
    title = f"epoch {run.epoch + 1}/{epochs}"
    bar = tqdm(batches, title, unit_scale=settings.batch_size, unit="img", leave=False, disable=None)
    run.model.train()
    losses, started = torch.zeros((), device=device), time.perf_counter()
    for step, indices in enumerate(bar):
        generator = torch.Generator().manual_seed(_mix(seed, run.epoch, step))
        progress = (run.epoch + step / len(batches)) / epochs
        batch = tuple(x.to(device) for x in dataset[indices])
        with precision:
            loss = compute_loss(run.model, batch, generator, progress)
        loss.backward()
        nn.utils.clip_grad_norm_(run.model.parameters(), settings.clip_norm)
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)
        run.schedule.step()
        run.ema.update_parameters(run.model)
        losses += loss.detach()
        if step % 20 == 0 or step + 1 == len(batches):  # reading a number waits for the device
            mean = losses.item() / (step + 1)
            bar.set_postfix(loss=f"{mean:.4f}")
            _require_finite("loss", mean, run.epoch + 1, settings)
        if step == 20 and not run.log:
            minutes = (time.perf_counter() - started) / 21 * len(batches) * (epochs - run.epoch) / 60
            tqdm.write(f"about {minutes:.0f} minutes of training at this speed, validation not counted")
            sys.stdout.flush()
    return losses.item() / len(batches)


def _require_finite(what: str, value: float, epoch: int, settings: Settings) -> None:
    if not math.isfinite(value):
        advice = f"start again with a lower LEARNING_RATE (now {settings.learning_rate})"
        raise UserError(f"the {what} became {value} in epoch {epoch}: {advice}; earlier checkpoints are untouched")


def _batches(count: int, settings: Settings, seed: int) -> list[list[int]]:
    """Shuffled indices of an epoch, repeated up to EPOCH_STEPS batches; an incomplete last batch is dropped."""
    size, generator = min(settings.batch_size, count), torch.Generator().manual_seed(seed)
    steps = max(count // size, settings.constants.get("EPOCH_STEPS", 0))
    order = [torch.randperm(count, generator=generator) for _ in range(math.ceil(steps * size / count))]
    return list(BatchSampler(torch.cat(order).tolist(), size, drop_last=True))[:steps]


def _mix(*numbers: int) -> int:
    """One well-mixed seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _averaged(model: nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of the weights; a lower decay in the first steps forgets the initial weights."""

    def update(averages: list[torch.Tensor], weights: list[torch.Tensor], _) -> None:
        steps = ema.n_averaged.item()  # on the CPU: reading it waits for no GPU
        get_ema_multi_avg_fn(min(decay, (1 + steps) / (10 + steps)))(averages, weights, steps)

    ema = AveragedModel(model, multi_avg_fn=update, use_buffers=True)
    return ema


def _adamw(model: nn.Module, rates: dict[str, float], settings: Settings) -> torch.optim.AdamW:
    """AdamW; biases and norms (one-dimensional parameters) do not decay."""
    groups = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = rates.get(name.partition(".")[0], 1.0) * settings.learning_rate
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    groups = [{"params": own, "lr": rate, "weight_decay": decay} for (rate, decay), own in groups.items()]
    return torch.optim.AdamW(groups, fused=True)  # one pass over the weights


def _warmup_cosine(optimizer: torch.optim.Optimizer, steps: int, warmup: float) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear rise during the first `warmup` share of the steps, then half a cosine down to 0."""

    def factor(step: int) -> float:
        rise = warmup * steps
        if step < rise:
            return (step + 1) / (rise + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _only_run_in(folder: Path) -> FileLock:
    """Lock the folder. Raises UserError if another training has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock").acquire(timeout=0)
        for file in folder.glob("*.tmp"):  # of a process that was killed while it wrote
            file.unlink()
        return lock
    except Timeout:
        raise UserError(f"another training is writing to {folder}; wait for it or change CHECKPOINTS") from None
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error}; change CHECKPOINTS") from error


def _set_aside(folder: Path) -> None:
    """Move the files of an earlier run to folder/previous_1, previous_2, ..."""
    old = [folder / name for name in FILES if (folder / name).exists()]
    if old:
        previous = next(new for n in itertools.count(1) if not (new := folder / f"previous_{n}").exists())
        previous.mkdir()
        for file in old:
            file.replace(previous / file.name)
        print(f"a new run; the files of the last one are now in {previous}")


def _own_weights(model: nn.Module, about: dict) -> dict[str, torch.Tensor]:
    """The weights, without those of a frozen pretrained encoder: the checkpoint holds its hub id.

    With about["holds_encoder"] they are included: they came from a file that may be moved or deleted.
    """
    frozen = about["arguments"].get("freeze_encoder") and not about.get("holds_encoder")
    left_out = "encoder." if frozen else ()
    return {name: value for name, value in model.state_dict().items() if not name.startswith(left_out)}


def _save(run: _Run, folder: Path, about: dict, score: float) -> None:
    """After a validation: write the weights if they are the best so far, log.csv and last.pt; print the log's line."""
    write_csv(run.log, folder / "log.csv")  # first: it says how long the run is
    averaged = _own_weights(run.ema.module, about)
    if score > run.best:
        run.best = score
        checkpoint.save({**about, "weights": checkpoint.halve(averaged), "score": score}, folder / FILES[0])
    everything = {
        "weights": _own_weights(run.model, about),
        "ema": averaged,
        "ema_updates": run.ema.n_averaged,
        "optimizer": run.optimizer.state_dict(),
        "schedule": run.schedule.state_dict(),
        "best": run.best,
        "log": run.log,
    }
    checkpoint.save({**about, **everything}, folder / "last.pt")  # last: a run resumes from it
    line = {key: value for key, value in run.log[-1].items() if key != "epoch"}
    of_classes = {key: line[key] for key in line if key.startswith("iou_") and math.isfinite(line[key])}
    if len(of_classes) > 4:  # log.csv has them all
        lowest = min(of_classes, key=of_classes.get)
        line = {key: line[key] for key in line if not key.startswith("iou_") or key == lowest}
    numbers = (f"{key} {value:.4g}" for key, value in line.items())
    print("  ".join([f"epoch {run.epoch}/{about['constants']['EPOCHS']}", *numbers]), flush=True)


def _resume(run: _Run, path: Path, about: dict, classes: Classes, settings: Settings) -> None:
    """Restore the run from last.pt. Raises UserError if it belongs to another run."""
    for file in (path, path.with_name(FILES[0])):
        if not file.exists():
            raise UserError(f"RESUME = True, but {file} is missing: start with RESUME = False")
    saved = checkpoint.load(path)
    require_same(checkpoint.classes_of(saved), classes, path, settings.data_root)
    if saved.get("encoder_digest") != about.get("encoder_digest"):
        raise UserError(f"{path} belongs to a run on another encoder: start with RESUME = False")
    then, now = {**saved, **saved["constants"], **saved["arguments"]}, {"EPOCHS": settings.epochs}
    if saved["epoch"] < settings.epochs:  # a finished run trains no more
        now = {key: value for key, value in settings.constants.items() if key not in FREE}
        now |= {key: value for key, value in about.items() if key.endswith("pictures")}
    now |= {**about["arguments"], "encoder_config": then.get("encoder_config")}
    if odd := [f"{key} = {then[key]}, now it is {now[key]}" for key in now if key in then and then[key] != now[key]]:
        raise UserError(f"{path} belongs to a run of {odd[0]}: change that, or start with RESUME = False")
    try:
        checkpoint.load_state(run.model, saved["weights"], path, ignore="encoder.")
        checkpoint.load_state(run.ema.module, saved["ema"], path, ignore="encoder.")
        run.ema.n_averaged.copy_(saved["ema_updates"])
        run.optimizer.load_state_dict(saved["optimizer"])
        run.schedule.load_state_dict(saved["schedule"])
        run.epoch, run.best, run.log = saved["epoch"], saved["best"], saved["log"]
        run.minutes = saved.get("minutes", 0.0)
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} belongs to a run with other constants ({error}): start with RESUME = False") from error
