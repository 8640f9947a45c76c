"""What surrounds a script: a console that lacks letters, a closed pipe, signals to end."""

import io
import multiprocessing
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from types import FrameType

AGAIN = 10.0  # seconds after a signal in which further ones are the same request: the cleanup goes on


class Stopped(KeyboardInterrupt):
    """A signal to end, as Ctrl-C is one."""

    def __init__(self, number: int):
        super().__init__()
        self.signal = number


def stop_on_signals() -> None:
    """End on SIGTERM and SIGHUP as on Ctrl-C: everything is cleaned up, worker processes end too.

    A signal that is ignored stays ignored (nohup), one that is handled already keeps its handler.
    """
    own_process, last = os.getpid(), -AGAIN

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal last
        if os.getpid() != own_process:  # a forked worker
            os._exit(128 + number)
        if time.monotonic() - last < AGAIN:
            return
        last = time.monotonic()
        sys.unraisablehook = lost
        for child in multiprocessing.active_children():
            child.terminate()
        raise Stopped(number)

    def lost(event) -> None:
        """Python drops what a finaliser raises: if it was Stopped, send the signal again; print nothing."""
        nonlocal last
        if isinstance(event.exc_value, Stopped):
            last = -AGAIN
            threading.Timer(0.1, os.kill, (own_process, event.exc_value.signal)).start()

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, stop)


def forgive_output() -> None:
    """Let no output raise: letters that the console lacks become ?, what nobody reads any more is dropped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # pythonw, or closed by the shell
            setattr(sys, name, io.TextIOWrapper(io.FileIO(os.devnull, "w"), "utf-8", "replace"))
        elif isinstance(stream, io.TextIOWrapper):
            with suppress(OSError):
                stream.flush()
            buffer = io.BufferedWriter(_Forgiving(stream))
            errors = "backslashreplace" if name == "stderr" else "replace"
            setattr(sys, name, io.TextIOWrapper(buffer, stream.encoding, errors, line_buffering=True))


@cache
def say_once(text: str) -> None:
    """Print a line about the data that several parts of a script may notice."""
    print(text, flush=True)


class _Forgiving(io.RawIOBase):
    """A file, pipe or console whose errors are passed over."""

    def __init__(self, stream: io.TextIOWrapper):
        self.stream = stream  # which would close the file if it were forgotten
        self.raw = getattr(stream.buffer, "raw", stream.buffer)  # python -u has no buffer
        self.fileno, self.isatty = self.raw.fileno, self.raw.isatty

    def write(self, data: memoryview) -> int:
        with suppress(OSError, ValueError):  # closed by its reader, or here
            return self.raw.write(data)
        return len(data)

    def writable(self) -> bool:
        return True
