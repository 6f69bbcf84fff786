"""Grids over one image: what is read off where, against plain interpolation; torch's where cells are even."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.manifests import Cells
from pipeline_lib.features.resampling import resample

sides = st.integers(1, 9)
offsets = st.floats(-2, 2).map(lambda value: round(value, 3))


@given(grid=st.tuples(sides, sides), shape=st.tuples(sides, sides), seed=st.integers(0, 9))
def test_even_cells_are_resized_as_torch_does_to_the_bit(
    grid: tuple[int, int], shape: tuple[int, int], seed: int
) -> None:
    values = torch.randn(2, 3, *grid, generator=torch.Generator().manual_seed(seed))
    expected = torch.nn.functional.interpolate(values, shape, mode="bilinear", align_corners=False)
    assert torch.equal(resample(values, Cells.even(grid), Cells.even(shape), shape), expected)


@given(
    grid=st.tuples(sides, sides),
    shape=st.tuples(sides, sides),
    offset=st.tuples(offsets, offsets),
    across=st.tuples(st.floats(1, 12), st.floats(1, 12)),
)
def test_a_value_is_read_off_between_the_centres_and_goes_on_beyond_the_last(
    grid: tuple[int, int], shape: tuple[int, int], offset: tuple[float, float], across: tuple[float, float]
) -> None:
    values = np.random.default_rng(0).random(grid)
    cells, pixels = Cells(offset=offset, across=across), Cells.even(shape)
    expected = values
    for axis in (0, 1):  # numpy's linear interpolation holds the last value beyond the ends
        known = [(i + offset[axis]) / across[axis] for i in range(grid[axis])]
        wanted = [(i + 0.5) / shape[axis] for i in range(shape[axis])]
        expected = np.apply_along_axis(lambda line, w=wanted, k=known: np.interp(w, k, line), axis, expected)
    found = resample(torch.tensor(values, dtype=torch.float32)[None, None], cells, pixels, shape)[0, 0].numpy()
    assert np.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("cells", [Cells(offset=(0.0625, 0.0625), across=(2.5, 2.5)), Cells.even((3, 3))])
def test_a_grid_at_its_own_places_is_left_as_it_is(cells: Cells) -> None:
    values = torch.rand(1, 1, 3, 3)
    assert resample(values, cells, cells, (3, 3)) is values


def test_cells_survive_a_table() -> None:
    cells = Cells(offset=(0.1, 0.2), across=(3.3, 4.0))
    assert Cells.of_table(np.array(cells.for_table())) == cells
