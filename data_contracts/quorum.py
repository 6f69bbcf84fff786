"""The quorum rule: how many clients must deliver for a federation to go on."""

from __future__ import annotations

from collections.abc import Mapping


def quorum_problem(
    *, min_clients: int, n_clients: int, n_delivered: int, causes: Mapping[str, str], round_number: int | None = None
) -> str | None:
    """Why too few clients delivered, or None.

    n_clients: clients that have images; never more than those are asked for, and never less than one. `causes` names
    what kept the others; `round_number` is said where there is more than one round.
    """
    if n_clients == 0:
        return "no client has any image"
    needed = max(1, min(min_clients, n_clients))
    if n_delivered >= needed:
        return None
    where = "" if round_number is None else f" in round {round_number}"
    return (
        f"quorum not met{where}, {n_delivered} of {n_clients} clients delivered and {needed} are needed: "
        f"{listed(causes)}"
    )


def listed(causes: Mapping[str, str]) -> str:
    """Clients and their causes in one line."""
    return "; ".join(f"{client}: {cause}" for client, cause in causes.items())
