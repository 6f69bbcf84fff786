"""How the settings of a run differ from PatchCore as published (Roth et al. 2022), in a few words."""

from __future__ import annotations

from collections.abc import Mapping

from data_contracts.config import ExperimentConfig, ModelConfig


def method_words(model: ModelConfig) -> str:
    """What a reader must know who compares with PatchCore's figures; empty where nothing differs."""
    found = []
    if model.rows == "cell_means":
        found.append("rows: means of cells, not PatchCore's picks")
    if model.alignment == "centers":
        found.append("maps aligned by cell centres, not by corners as PatchCore's")
    return "; ".join(found)


def method_sentence(configs: Mapping[str, ExperimentConfig]) -> str:
    """The same of several experiments, name -> configuration: one sentence where it is so of all."""
    found: dict[str, list[str]] = {}
    for name, config in configs.items():
        found.setdefault(method_words(config.model) or "rows and alignment as PatchCore's", []).append(name)
    if len(found) == 1:
        return next(iter(found))
    return ". ".join(f"{', '.join(names)}: {words}" for words, names in found.items())
