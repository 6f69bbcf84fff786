"""Coreset selection: which rows of a feature matrix stand for the rest."""

from pipeline_lib.coreset.kcenter import greedy_coreset_selection
from pipeline_lib.coreset.on_device import kcenter_selection
from pipeline_lib.coreset.selection import CoresetSelection, coreset_size
from pipeline_lib.coreset.subsampling import covering_radius, density_subsampling, random_subsampling

__all__ = [
    "CoresetSelection",
    "coreset_size",
    "covering_radius",
    "density_subsampling",
    "greedy_coreset_selection",
    "kcenter_selection",
    "random_subsampling",
]
