"""Scripts in processes that have PyTorch already: importing it is most of a script's start.

A server imports the packages once and is forked for every script. It knows nothing of the repository: a script imports
its own modules.
"""

import importlib
import json
import multiprocessing
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

PACKAGES = ("torch._dynamo", "matplotlib.pyplot", "scipy.ndimage")  # none that reads the environment when imported


def run(
    script: str | Path, arguments: Sequence[object], cwd: Path, env: dict[str, str], timeout: float
) -> subprocess.CompletedProcess:
    """`python script arguments`; a script without .py is a module, `python -m script`. Raises TimeoutExpired."""
    command = [*map(str, (script, *arguments))]
    if sys.platform != "linux":  # elsewhere a fork that has loaded the system's libraries is not safe, or not there
        plain = [sys.executable, *(() if command[0].endswith(".py") else ("-m",)), *command]
        return subprocess.run(plain, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout)
    with tempfile.TemporaryDirectory() as folder:
        outputs = [f"{folder}/{name}" for name in ("stdout", "stderr")]
        server = _server()
        print(json.dumps((command, str(cwd), env, outputs)), file=server.stdin, flush=True)
        if not select.select([server.stdout], [], [], timeout)[0]:
            os.killpg(server.pid, signal.SIGKILL)
            _server.cache_clear()
            raise subprocess.TimeoutExpired(command, timeout)
        status = int(server.stdout.readline())
        return subprocess.CompletedProcess(command, status, *(Path(path).read_text() for path in outputs))


@cache
def _server() -> subprocess.Popen:
    """This file as a process, which ends with the one that started it."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen([sys.executable, __file__], **pipes, text=True, start_new_session=True)


def _serve() -> None:
    for name in PACKAGES:
        importlib.import_module(name)
    fork = multiprocessing.get_context("fork")
    for job in sys.stdin:
        process = fork.Process(target=_run, args=json.loads(job))
        process.start()
        process.join()
        print(process.exitcode, flush=True)


def force_precision() -> None:
    """AUTO_PRECISION in the environment, "bf16" or "fp32": what "auto" means in the tests, whatever the CPU multiplies.

    PyTorch emulates bf16 where the CPU lacks it.
    """
    if wanted := os.environ.get("AUTO_PRECISION"):
        from utils import device

        fast = {"bf16": True, "fp32": False}[wanted]
        device._cpu_multiplies_bf16 = lambda: fast


def _run(command: list[str], cwd: str, env: dict[str, str], outputs: list[str]) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for descriptor, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.argv, is_file = command, command[0].endswith(".py")
    sys.path[:1] = [os.path.dirname(os.path.abspath(command[0])) if is_file else cwd, env["PYTHONPATH"]]
    force_precision()
    if is_file:
        runpy.run_path(command[0], run_name="__main__")
    else:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _serve()
