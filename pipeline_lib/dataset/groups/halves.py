"""The halves of a test set: settings are chosen on the development half and reported on the other."""

from __future__ import annotations

import hashlib
from typing import Literal

Half = Literal["development", "report"]


def half_of(sha256: str, group: str | None = None) -> Half:
    """The half of an image: development where its SHA-256 begins with an even hex digit, else report.

    Where the image has a group, that of the group's name, so that a group is in one half. Raises ValueError for
    anything but hex digits.
    """
    if group is not None:
        sha256 = hashlib.sha256(group.encode()).hexdigest()
    return "report" if int(sha256[:1], 16) % 2 else "development"
