"""Runs in processes of their own, watched from outside."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path


def features_of_first_client(process: subprocess.Popen[bytes], store: Path, *, log: Path, seconds: float = 240) -> Path:
    """Wait until a client's features are in the store, while others are still at it; where their tables lie."""
    features = store / "objects" / "patch_features"
    deadline = time.monotonic() + seconds
    while not list(features.rglob("*.parquet")):
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return features
