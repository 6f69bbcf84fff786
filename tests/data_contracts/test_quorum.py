"""The quorum: all clients that have images unless a number is given, which is meant literally."""

from __future__ import annotations

from typing import Literal

import pytest

from data_contracts.federation import listed, quorum_out_of_reach, quorum_problem, without_images


@pytest.mark.parametrize(
    ("min_clients", "n_delivered", "needed"),
    [("all", 24, None), ("all", 23, 24), ("all", 0, 24), (1, 1, None), (1, 0, 1), (2, 1, 2), (30, 24, 30)],
)
def test_who_must_deliver(min_clients: int | Literal["all"], n_delivered: int, needed: int | None) -> None:
    problem = quorum_problem(min_clients=min_clients, n_clients=24, n_delivered=n_delivered, causes={"a": "dead"})
    expected = f"quorum not met, {n_delivered} of 24 clients delivered and {needed} are needed: a: dead"
    assert problem == (needed and expected)


def test_the_round_is_named_where_there_are_several_and_every_cause() -> None:
    causes = {"a": "OSError: camera is off", "b": "its run did not start"}
    problem = quorum_problem(min_clients=2, n_clients=3, n_delivered=1, causes=causes, round_number=2)
    assert problem == (
        "quorum not met in round 2, 1 of 3 clients delivered and 2 are needed: "
        "a: OSError: camera is off; b: its run did not start"
    )
    assert listed(causes) == "a: OSError: camera is off; b: its run did not start"


def test_a_number_above_the_clients_that_have_images_is_out_of_reach() -> None:
    assert quorum_out_of_reach(min_clients="all", n_clients=24, empty_clients=["x"]) is None
    assert quorum_out_of_reach(min_clients=24, n_clients=24) is None
    problem = quorum_out_of_reach(min_clients=30, n_clients=24, empty_clients=["x", "y"])
    assert problem is not None
    for words in ("min_clients is 30, clients with images: 24", "without images: x, y", "not mounted"):
        assert words in problem


@pytest.mark.parametrize("min_clients", ["all", 1])
def test_without_any_client_the_images_are_what_is_missing(min_clients: int | Literal["all"]) -> None:
    problem = quorum_out_of_reach(min_clients=min_clients, n_clients=0, empty_clients=["x"])
    assert problem is not None
    assert problem.startswith("no client has any image; without images: x; look for a disk that is not mounted")


def test_of_very_many_clients_the_first_are_named() -> None:
    said = without_images([f"client_{n}" for n in range(9000)])
    assert said.startswith("without images: client_0, client_1")
    assert said.endswith("client_19 and 8980 more")
