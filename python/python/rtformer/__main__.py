"""The program `rtformer`: `python -m rtformer`, or `rtformer` where pip installed it."""

import signal
import sys

from rtformer import _rtformer


def main() -> int:
    """Runs the command line in `sys.argv`. Returns the exit code."""
    # Ctrl-C then does what it does to any program: Python's own handler could only act after the command has ended.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _rtformer._main(["rtformer", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
