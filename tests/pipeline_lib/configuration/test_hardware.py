"""Process-wide settings of the machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from pipeline_lib.configuration import hardware
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def _kernels_as_they_were() -> Iterator[None]:
    names = ("deterministic", "benchmark", "allow_tf32")
    before = {name: getattr(torch.backends.cudnn, name) for name in names}
    yield
    for name, value in before.items():
        setattr(torch.backends.cudnn, name, value)


@pytest.mark.parametrize("deterministic", [True, False])
def test_kernels_follow_the_setting(deterministic: bool) -> None:
    hardware.choose_cuda_kernels(deterministic=deterministic)
    assert torch.backends.cudnn.deterministic is deterministic
    assert torch.backends.cudnn.benchmark is not deterministic
    assert torch.backends.cudnn.allow_tf32 is not deterministic


def test_peak_memory_is_not_that_of_the_process_that_started_this_one() -> None:
    large = np.ones(1 << 27)  # 1 GiB, more than Python with torch takes
    code = "from pipeline_lib.configuration.hardware import peak_rss_mb; print(peak_rss_mb())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 50 < float(done.stdout) < 900 < 1000 < hardware.peak_rss_mb()
    assert large[0] == 1
