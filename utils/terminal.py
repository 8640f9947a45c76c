"""Output that cannot fail (a console without some letters, a closed pipe), and signals that end a script."""

import io
import os
import signal
import sys
from contextlib import suppress
from functools import cache
from types import FrameType

say_once = cache(print)  # for a line that several parts of a script print


def stop_on_signals() -> None:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt(the signal's number), as Ctrl-C does.

    A signal that is ignored stays ignored (nohup); one with a handler keeps it.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(number)

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, stop)


def forgive_output() -> None:
    """Let no output raise: letters that the console lacks become ?, output to a closed pipe is dropped."""
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


class _Forgiving(io.RawIOBase):
    """A file, pipe or console whose errors are ignored."""

    def __init__(self, stream: io.TextIOWrapper):
        self.stream = stream  # kept, since it closes the file when it is deleted
        self.raw = getattr(stream.buffer, "raw", stream.buffer)  # python -u has no buffer
        self.fileno, self.isatty = self.raw.fileno, self.raw.isatty

    def write(self, data: memoryview) -> int:
        with suppress(OSError, ValueError):  # closed by its reader, or here
            return self.raw.write(data)
        return len(data)

    def writable(self) -> bool:
        return True
