"""Process-wide settings of the machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from pipeline_lib import hardware


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
