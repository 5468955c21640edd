"""The command line inside the package behaves like the program: output, exit codes and signals."""

import functools
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

import rtformer

OWN = [sys.executable, "-m", "rtformer"]


def run(*arguments, **options):
    return subprocess.run([*OWN, *map(str, arguments)], capture_output=True, timeout=120, check=False, **options)


def test_exit_codes(street, tmp_path):
    (tmp_path / "bad.jpg").write_text("no photo")
    cases = [
        (["--version"], 0),
        (["--help"], 0),
        ([], 2),
        (["segment"], 2),
        (["segment", street[0], "-o", tmp_path / "a", "--frobnicate"], 2),
        (["segment", street[0], "-o", tmp_path / "b", "-q"], 0),
        (["segment", street[0], tmp_path / "bad.jpg", "-o", tmp_path / "c"], 1),
        (["segment", tmp_path / "none.jpg", "-o", tmp_path / "d"], 1),
    ]
    for arguments, code in cases:
        done = run(*arguments)
        assert done.returncode == code, (arguments, done)


def test_versions_agree():
    version = importlib.metadata.version("rtformer")
    assert version == rtformer.__version__
    assert run("--version").stdout.decode().split() == ["rtformer", version]


def test_the_script_is_installed(street, tmp_path):
    script = shutil.which("rtformer", path=os.path.dirname(sys.executable))
    assert script, "pip installs the program next to the interpreter"
    subprocess.run([script, "segment", street[0], "-o", tmp_path], check=True, capture_output=True, timeout=120)
    assert [path.name for path in tmp_path.glob("*.mask.png")] == [f"{street[0].stem}.mask.png"]


def test_standard_output_is_complete(street):
    """Bytes that do not end a line stay in Rust's buffer unless it is flushed."""
    done = run("segment", street[0], "-o", "-", "--emit", "mask")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"\x89PNG") and done.stdout.endswith(b"IEND\xaeB`\x82")
    lines = run("segment", street[0], "--json", "-o", os.devnull, "--dry-run").stdout.splitlines()
    assert all(json.loads(line) for line in lines)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_interrupts_finish_the_photos_in_progress(street, tmp_path):
    """The reader of a stream waits for the next picture; Ctrl-C ends the wait."""
    process = subprocess.Popen(
        [*OWN, "segment", "-", "-o", tmp_path / "out", "-v"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        process.stdin.write(street[0].read_bytes() + street[1].read_bytes())
        process.stdin.flush()
        assert any(list((tmp_path / "out").rglob("*.png")) or time.sleep(0.1) for _ in range(600))
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        error = process.stderr.read().decode()
        assert "Traceback" not in error and "KeyboardInterrupt" not in error, error
    finally:
        process.kill()


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_ends_commands_that_do_not_wait_for_photos(tmp_path):
    """`bench` has no handler, so the signal has its usual effect."""
    usual = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a background job of a shell ignores the signal
    command = [*OWN, "bench", "--size", "640x480", "--runs", "100000"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=usual)
    try:
        time.sleep(3)
        assert process.poll() is None, "bench ended by itself"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in {-signal.SIGINT, 130}
    finally:
        process.kill()
