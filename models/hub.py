"""Pretrained weights: from a local folder, the Hugging Face cache or, failing these, the hub."""

from collections.abc import Callable
from pathlib import Path

HUB_TIMEOUT = 5.0  # seconds to wait for the hub's first answer


def load_pretrained(name: str, read: Callable[[bool], tuple]) -> tuple:
    """What read(local_files_only) returns; the files are downloaded first if this machine does not have all of them.

    name: hub id or local folder that `read` loads. Raises OSError saying what to do if the files cannot be downloaded,
    within seconds if there is no network, or if they hold something else.
    """
    from huggingface_hub import constants, hf_hub_download
    from safetensors import SafetensorError
    from transformers import logging

    logging.set_verbosity_error()  # its report of unused and missing weights is replaced by check_complete
    try:
        try:
            return read(True)
        except OSError:
            if Path(name).is_dir():
                raise
        # transformers retries for half a minute before it gives up on a network; a forced download fails at once.
        hf_hub_download(name, "config.json", force_download=True, etag_timeout=HUB_TIMEOUT)
        return read(False)
    # ValueError: wrong weights, a name that cannot be an id, and a forced download without a network.
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error.__cause__ or error).strip().partition("\n")[0].rstrip(".")
        raise OSError(
            f"the weights {name} cannot be loaded ({reason}).\n"
            f"They are looked for in {constants.HF_HUB_CACHE} (HF_HOME moves it), then downloaded. Without a network: "
            f"run `hf download {name}` elsewhere and copy that machine's Hugging Face cache here, or run "
            f"`hf download {name} --local-dir FOLDER` and give the folder in place of the id."
        ) from error


def check_complete(report: dict) -> None:
    """Raise ValueError if weights are missing, which transformers replaces by random numbers.

    report: from from_pretrained(..., output_loading_info=True). The pooler may be missing: no model here uses it.
    """
    if missing := sorted(name for name in report["missing_keys"] if "pooler" not in name):
        raise ValueError(f"{len(missing)} weights are missing, {missing[0]} among them")
