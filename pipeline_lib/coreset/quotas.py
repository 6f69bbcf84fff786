"""At most so many picks of each group, for a selection that works on an array of bounds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from data_contracts.errors import FedpatchError


class GroupQuotas:
    """Quotas of a selection of `target_size` out of `rows`; with `groups` None there is no limit.

    Rows of a group whose quota is used up are closed: their bounds are put aside here, and come back with `reopen`.
    Raises FedpatchError when the quotas cannot reach `target_size`.
    """

    def __init__(
        self, groups: np.ndarray | None, quotas: Mapping[int, int] | None, *, rows: int, target_size: int
    ) -> None:
        if (groups is None) != (quotas is None):
            raise FedpatchError("groups and group_quotas go together: give both or neither")
        self.groups = groups
        self.limited = groups is not None
        self.rows = rows
        self.left: dict[int, int] = {}
        self.aside: list[tuple[np.ndarray, np.ndarray]] = []
        if groups is None or quotas is None:
            return
        if groups.shape != (rows,) or groups.dtype.kind not in "iu":
            raise FedpatchError(f"groups are {groups.dtype} of shape {groups.shape}; give one integer a row, ({rows},)")
        names, counts = np.unique(groups, return_counts=True)
        self.left = {int(name): max(0, int(quotas.get(int(name), 0))) for name in names}
        reachable = sum(min(self.left[int(name)], int(count)) for name, count in zip(names, counts, strict=True))
        if reachable < target_size:
            raise FedpatchError(f"group quotas allow {reachable} rows, {target_size} were asked for; raise the quotas")

    def draw(self, rng: np.random.Generator) -> int:
        """A row of a group with quota, drawn evenly."""
        if self.groups is None:
            return int(rng.integers(self.rows))
        with_quota = [group for group, quota in self.left.items() if quota > 0]
        return int(rng.choice(np.flatnonzero(np.isin(self.groups, with_quota))))

    def use(self, row: int) -> bool:
        """Count a pick; whether it was the last of its group."""
        if self.groups is None:
            return False
        group = int(self.groups[row])
        self.left[group] -= 1
        return self.left[group] == 0

    def close(self, row: int, bounds: np.ndarray) -> np.ndarray:
        """The rows still open (bounds of at least 0) in the group of `row`; their bounds are put aside."""
        assert self.groups is not None
        rows = np.flatnonzero((self.groups == self.groups[row]) & (bounds >= 0))
        self.aside.append((rows, bounds[rows]))
        return rows

    def close_empty(self, bounds: np.ndarray) -> np.ndarray:
        """The rows of groups without any quota; their bounds are put aside."""
        if self.groups is None:
            return np.empty(0, np.int64)
        empty = [group for group, quota in self.left.items() if quota == 0]
        rows = np.flatnonzero(np.isin(self.groups, empty))
        self.aside.append((rows, bounds[rows]))
        return rows

    def reopen(self, bounds: np.ndarray) -> np.ndarray:
        """Put all bounds back; the rows that had been put aside."""
        reopened = [np.empty(0, np.int64)]
        for rows, kept in self.aside:
            bounds[rows] = kept
            reopened.append(rows)
        self.aside.clear()
        return np.concatenate(reopened)
