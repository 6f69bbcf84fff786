"""What a figure was measured on."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

SETS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "bf16")


def processor() -> dict[str, Any]:
    """Its name, and those of its instruction sets that matrix products use; none where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set((said.get("flags") or said.get("Features") or "").split())
    name = said.get("model name") or platform.processor() or platform.machine()
    return {"name": name, "instruction_sets": [one for one in SETS if one in flags]}
