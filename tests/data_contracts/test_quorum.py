"""The quorum rule: how many are needed, and what is said where they are not there."""

from __future__ import annotations

import pytest

from data_contracts.quorum import listed, quorum_problem


@pytest.mark.parametrize(
    ("min_clients", "n_clients", "n_delivered", "needed"),
    [
        (1, 3, 1, None),
        (3, 3, 3, None),
        (3, 3, 2, 3),
        (5, 3, 3, None),  # never more than there are
        (5, 3, 2, 3),
        (0, 3, 0, 1),  # never less than one
        (1, 3, 0, 1),
    ],
)
def test_as_many_as_asked_for_but_not_more_than_have_images_and_not_less_than_one(
    min_clients: int, n_clients: int, n_delivered: int, needed: int | None
) -> None:
    problem = quorum_problem(
        min_clients=min_clients, n_clients=n_clients, n_delivered=n_delivered, causes={"c": "gone"}
    )
    expected = f"quorum not met, {n_delivered} of {n_clients} clients delivered and {needed} are needed: c: gone"
    assert problem == (expected if needed else None)


def test_the_round_is_named_where_there_are_several_and_every_cause() -> None:
    causes = {"a": "OSError: camera is off", "b": "its run did not start"}
    problem = quorum_problem(min_clients=2, n_clients=3, n_delivered=1, causes=causes, round_number=2)
    assert problem == (
        "quorum not met in round 2, 1 of 3 clients delivered and 2 are needed: "
        "a: OSError: camera is off; b: its run did not start"
    )
    assert listed(causes) == "a: OSError: camera is off; b: its run did not start"


def test_without_any_client_the_images_are_what_is_missing() -> None:
    assert quorum_problem(min_clients=1, n_clients=0, n_delivered=0, causes={}) == "no client has any image"
