"""The quorum rule: how many clients must deliver for a federation to go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

LISTED_NAMES = 20


def quorum_problem(
    *,
    min_clients: int | Literal["all"],
    n_clients: int,
    n_delivered: int,
    causes: Mapping[str, str],
    round_number: int | None = None,
) -> str | None:
    """Why too few clients delivered, or None.

    n_clients: clients that have images, which `all` asks for; never less than one is. `causes` names what kept the
    others; `round_number` is said where there is more than one round.
    """
    needed = max(1, n_clients if min_clients == "all" else min_clients)
    if n_delivered >= needed:
        return None
    where = "" if round_number is None else f" in round {round_number}"
    return (
        f"quorum not met{where}, {n_delivered} of {n_clients} clients delivered and {needed} are needed: "
        f"{listed(causes)}"
    )


def quorum_out_of_reach(
    *, min_clients: int | Literal["all"], n_clients: int, empty_clients: Sequence[str] = ()
) -> str | None:
    """Why the quorum cannot be met whatever the clients do, which the partition alone tells; or None.

    n_clients: clients that have images; `empty_clients`: those that have none.
    """
    if n_clients and (min_clients == "all" or min_clients <= n_clients):
        return None
    asked = f"quorum out of reach, federated.min_clients is {min_clients}, clients with images: {n_clients}"
    lower = ", or set federated.min_clients to all or a lower number" if n_clients else ""
    return "; ".join(
        [
            asked if n_clients else "no client has any image",
            *([without_images(empty_clients)] if empty_clients else []),
            f"look for a disk that is not mounted{lower}",
        ]
    )


def without_images(clients: Sequence[str]) -> str:
    """Clients that were skipped, in one line; the first of very many."""
    left = len(clients) - LISTED_NAMES
    names = ", ".join(clients[:LISTED_NAMES])
    return f"without images: {names}" + (f" and {left} more" if left > 0 else "")


def listed(causes: Mapping[str, str]) -> str:
    """Clients and their causes in one line."""
    return "; ".join(f"{client}: {cause}" for client, cause in causes.items())
