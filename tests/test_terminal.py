"""Consoles that lack letters, closed pipes, and signals to end."""

import io
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import script_environment

from utils import terminal

WORK = """
import sys, time
from pathlib import Path
from utils.config import run_script

def main():
    try:
        print("started", flush=True)
        time.sleep(60)
    finally:
        Path("cleaned").touch()

run_script(main)
"""
TALK = """
import sys
from pathlib import Path
from tqdm import tqdm
from utils.config import run_script

def main():
    for number in range(3000):
        print("b\u00e9lier \u2013 \u8a9e", number)
        tqdm.write("and more", file=sys.stderr)
    Path("written").touch()

run_script(main)
"""


def start(code: str, tmp_path, *options: str, text: bool = False) -> subprocess.Popen:
    (tmp_path / "script.py").write_text(code)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": text}
    return subprocess.Popen([sys.executable, *options, "script.py"], cwd=tmp_path, env=script_environment(), **pipes)


@pytest.mark.parametrize("encoding", ["ascii", "cp932", "utf-8"])
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_no_letter_is_too_much_for_a_console_nor_is_none(monkeypatch, encoding, name):
    screen = io.BytesIO()
    monkeypatch.setattr(sys, name, io.TextIOWrapper(screen, encoding))
    terminal.forgive_output()
    text = "photo \u2013 b\u00e9lier \u8a9e \udcff"  # the last is a byte that could not be decoded
    print(text, file=getattr(sys, name), flush=True)
    assert screen.getvalue().startswith(b"photo ")
    monkeypatch.setattr(sys, name, None)  # pythonw
    terminal.forgive_output()
    print(text, flush=True, file=getattr(sys, name))


@pytest.mark.parametrize("options", [(), ("-u",)])
def test_a_closed_pipe_ends_the_output_and_not_the_work(tmp_path, options):
    process = start(TALK, tmp_path, *options)
    process.stdout.close()
    process.stderr.close()
    assert process.wait(60) == 0 and (tmp_path / "written").exists()


@pytest.mark.skipif(os.name != "posix", reason="no such signals")
def test_a_signal_to_end_cleans_up_as_ctrl_c_does(tmp_path):
    process = start(WORK, tmp_path, text=True)
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[1] == "stopped\n"
    assert process.returncode == 128 + signal.SIGTERM and (tmp_path / "cleaned").exists()


@pytest.fixture
def handlers():
    names = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in names}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.skipif(os.name != "posix", reason="no such signals")
def test_what_nohup_ignores_stays_ignored(handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    terminal.stop_on_signals()
    os.kill(os.getpid(), signal.SIGHUP)
    with pytest.raises(KeyboardInterrupt) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    assert stop.value.args == (signal.SIGTERM,)
