"""Groups that file names show, such as `01_200830_517500_315_crop.jpg`: a field with several images for each value."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from pipeline_lib.dataset.groups.assignment import LARGE_SHARE

_FIELD = re.compile(r"[^_\-. ]+")
_DATE = re.compile(r"(19|20)?\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
FEWEST_GROUPS = 10
"""Fewer values are those of a camera, a light or an exposure."""


def pattern_of_names(names: Mapping[str, Sequence[str]]) -> str | None:
    """A pattern for dataset.group, where file names of a category show one clearly; None where none or several do.

    names: category -> file names. All names have to differ and to be of as many fields, between the same separators; a
    field, or several side by side, has to have many values, each of at least two images and of at most a tenth, and no
    other choice of fields may group the images otherwise. Fields that may be dates are not looked at.
    """
    found = {pattern for own in names.values() if (pattern := _pattern(list(own))) is not None}
    if len(found) != 1:
        return None
    (pattern,) = found
    for own in names.values():  # it says nothing else of another category
        matches = [re.search(pattern, f"/{name}") for name in own]
        if any(matches) and _pattern(list(own)) != pattern:
            return None
    return pattern


def _pattern(names: list[str]) -> str | None:
    stems = [name.rpartition(".")[0] for name in names]
    separators = {tuple(_FIELD.split(stem)) for stem in stems}
    if len(separators) != 1 or len(set(stems)) < len(stems):  # numbers that begin anew in each folder are no groups
        return None
    (between,) = separators
    fields = [_FIELD.findall(stem) for stem in stems]
    partitions: dict[tuple[int, ...], tuple[int, int]] = {}  # who is with whom -> first and last field
    n_fields = len(fields[0])
    spans = [(first, last) for size in range(n_fields) for first in range(n_fields - size) for last in (first + size,)]
    for first, last in spans:
        values = [tuple(own[first : last + 1]) for own in fields]
        if not _is_group(values):
            continue
        number = {value: n for n, value in enumerate(dict.fromkeys(values))}
        partitions.setdefault(tuple(number[value] for value in values), (first, last))
    if len(partitions) != 1:
        return None
    ((first, last),) = partitions.values()
    parts = [re.escape(between[0])]
    for position in range(n_fields):
        parts += ["("] * (position == first) + [r"[^/_\-. ]+"] + [")"] * (position == last)
        parts.append(re.escape(between[position + 1]) if position < n_fields - 1 else r"\.")
        if position == last:
            break
    return "/" + "".join(parts) + r"[^/]*$"


def _is_group(values: list[tuple[str, ...]]) -> bool:
    sizes = Counter(values)
    if any(_DATE.fullmatch(field) for value in sizes for field in value):
        return False
    return (
        len(sizes) >= FEWEST_GROUPS
        and min(sizes.values()) >= 2
        and max(sizes.values()) <= max(2, LARGE_SHARE * len(values))
    )
