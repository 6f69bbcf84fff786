"""What a figure is measured on: the processor, all of it or AVX2 alone."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

SETS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "bf16")
AVX2_ALONE = {  # of torch's own loops, oneDNN, MKL and FAISS; OpenBLAS is told by OPENBLAS_CORETYPE
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "FAISS_OPT_LEVEL": "avx2",
    "FEDPATCH_BFLOAT16": "0",
}
NUMPYS_AVX512 = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"


def use_avx2_alone() -> None:
    """For the processes that are started from here on."""
    os.environ.update(AVX2_ALONE)
    if "avx512f" in processor()["instruction_sets"]:  # where there is none, NumPy warns of being told so
        os.environ["NPY_DISABLE_CPU_FEATURES"] = NUMPYS_AVX512


def processor(*, avx2_alone: bool = False) -> dict[str, Any]:
    """Its name, and those of its instruction sets that matrix products use; none where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set((said.get("flags") or said.get("Features") or "").split())
    name = said.get("model name") or platform.processor() or platform.machine()
    sets = SETS[: SETS.index("avx512f")] if avx2_alone else SETS
    return {"name": name, "instruction_sets": [one for one in sets if one in flags]}
