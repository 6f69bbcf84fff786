"""The machine: threads, device, memory, and the description that goes into every run directory."""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import logging
import os
import platform
import sys
from pathlib import Path
from typing import Any, Literal

import faiss
import psutil
import threadpoolctl

from data_contracts.config import canonical_hash
from pipeline_lib.storage.artifact_store import ArtifactStore
from pipeline_lib.when_needed import torch

logger = logging.getLogger(__name__)

REPORTED_PACKAGES = ("fedpatch", "prefect", "torch", "torchvision", "timm", "faiss-cpu", "numpy", "pandas", "pyarrow",
                     "pillow", "scikit-learn")  # fmt: skip


def limit_threads(threads: int) -> None:
    """Let torch, FAISS, OpenMP and BLAS use this many threads in this process (the setting is process-wide)."""
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    if faiss.omp_get_max_threads() != threads:
        faiss.omp_set_num_threads(threads)
    threadpoolctl.threadpool_limits(limits=threads)


def choose_cuda_kernels(*, deterministic: bool) -> None:
    """Convolutions on a CUDA device: the same ones every time, in float32; or the fastest that cuDNN finds, with TF32.

    The setting is process-wide and changes nothing on the CPU, where every kernel in use gives the same each time.
    """
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.allow_tf32 = not deterministic


def kernels_key(
    device: torch.device, *, batch_size: int, deterministic: bool, tf32: bool
) -> dict[str, bool | int | str] | None:
    """What decides the bytes of a network's output beside network and image; None on the CPU, where nothing else does.

    On a CUDA device kernels differ with TF32, with the choice of algorithm and with the images at a time.
    """
    if device.type == "cpu":
        return None
    return {"device": device.type, "batch_size": batch_size, "deterministic": deterministic, "tf32": tf32}


@functools.cache
def keep_freed_memory() -> bool:
    """Let glibc keep what tensors of up to 64 MiB give back, instead of returning it to the system each time.

    A forward pass allocates and frees every intermediate map; to have each one's pages cleared anew costs much of
    its time. At most 1 GiB is kept, larger arrays still go back at once. Whether it took effect: not without glibc.
    """
    m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(m_mmap_threshold, 64 << 20)) and bool(mallopt(m_trim_threshold, 1 << 30))


def is_cpu(device: Literal["auto", "cpu", "cuda"]) -> bool:
    """Whether `pick_device` picks the CPU; without torch where there is no GPU to pick."""
    return device == "cpu" or (device == "auto" and not _has_driver()) or pick_device(device).type == "cpu"


@functools.cache
def _has_driver() -> bool:
    """Whether there may be a GPU for torch: on Linux it needs the driver of NVIDIA or AMD."""
    if sys.platform != "linux":
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Path("/dev/kfd").exists()
    return True


def pick_device(device: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """`auto` is the first CUDA device where there is one. Asking for cuda without one falls back, and says so."""
    if device == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda:0")
    if device == "cuda":
        logger.warning("device: cuda was asked for, but torch finds no CUDA device; going on with the CPU")
    return torch.device("cpu")


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far, in MiB (or of its largest child, if that was larger; on Windows
    its own alone)."""
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset) / 2**20
    import resource

    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    if sys.platform == "darwin":  # in bytes there, in KiB elsewhere
        return max(own, children) / 2**20
    return max(_linux_peak_kib() or own, children) / 2**10


def _linux_peak_kib() -> int | None:
    """Linux's ru_maxrss starts at what the process that started this one had in memory; VmHWM is this program's own."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    except (OSError, StopIteration, ValueError):
        return None


def describe_environment(store: ArtifactStore | None = None) -> dict[str, Any]:
    """Versions and hardware, for the run directory: what a small difference between two runs may come from.

    What torch says of the processor is remembered in the store, where one is given, so that a run that computes nothing
    need not ask it.
    """
    versions = {}
    for package in REPORTED_PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed as a package"
    has_gpu = _has_driver() and torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor_name(),
        "cpu_capability": _cpu_capability(store, versions["torch"]),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "cuda": torch.version.cuda if has_gpu else None,
        "gpu": torch.cuda.get_device_name(0) if has_gpu else None,
        "packages": versions,
    }


def _cpu_capability(store: ArtifactStore | None, torch_version: str) -> str:
    """The instruction set that torch picks its kernels for, such as AVX512."""
    key = canonical_hash([torch_version, _processor_name(), os.environ.get("ATEN_CPU_CAPABILITY")])
    found = None if store is None else store.recall("cpu_capability", key)
    if found is None:
        found = torch.backends.cpu.get_cpu_capability()
        if store is not None:
            store.remember("cpu_capability", key, found)
    return str(found)


def _processor_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
