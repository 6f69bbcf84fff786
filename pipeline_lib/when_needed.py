"""torch, torchvision and timm, imported when something of them is first used.

They take longer to import than a run takes in which everything is cached. A module that uses them only inside of its
functions writes `from pipeline_lib.when_needed import torch`; one whose classes derive from theirs imports them, and is
imported where something is computed. `lazy import` of Python 3.15 will do the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["timm", "torch", "torchvision"]

if TYPE_CHECKING:
    import timm
    import torch
    import torchvision
else:
    import importlib
    from types import ModuleType

    class _WhenNeeded(ModuleType):
        _module: ModuleType | None = None

        def __getattr__(self, name: str) -> object:
            if self._module is None:
                self._module = importlib.import_module(self.__name__)
            return getattr(self._module, name)

    timm, torch, torchvision = map(_WhenNeeded, __all__)
