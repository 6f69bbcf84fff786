"""Runs a module as the main program, as `python -m`, which ends when the process that started it does.

The parent holds the other end of this one's standard input and writes nothing: the system closes it however the parent
ends, kill -9 included, on every platform.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

GRACE_SECONDS = 5.0


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    signal.raise_signal(signal.SIGTERM)  # as the parent would have ended it
    time.sleep(GRACE_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
