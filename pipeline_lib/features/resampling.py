"""From one grid to another over the same image, by where the cells of each lie.

Bilinear between the centres of cells; beyond the outermost centre the outermost cell's value goes on.
"""

from __future__ import annotations

from data_contracts.manifests import Cells
from pipeline_lib.when_needed import torch


def resample(values: torch.Tensor, cells: Cells, to: Cells, shape: tuple[int, int]) -> torch.Tensor:
    """Values (image, channel, height, width) at `cells`, read off at the centres `to` of a grid (height, width).

    Where the cells of both lie in the middle of their shares of the image, this is torch's bilinear resizing with
    corners not aligned, to the bit.
    """
    grid = (values.shape[-2], values.shape[-1])
    if grid == shape and cells == to:
        return values
    if cells == Cells.even(grid) and to == Cells.even(shape):
        return torch.nn.functional.interpolate(values, shape, mode="bilinear", align_corners=False)
    for axis, dim in ((0, -2), (1, -1)):
        centres = (torch.arange(shape[axis], dtype=torch.float64) + to.offset[axis]) / to.across[axis]
        positions = (centres * cells.across[axis] - cells.offset[axis]).clamp(0, grid[axis] - 1)
        low = positions.long().clamp(max=max(0, grid[axis] - 2))
        share = (positions - low).to(values.dtype).to(values.device)
        share = share[:, None] if dim == -2 else share
        low = low.to(values.device)
        high = (low + 1).clamp(max=grid[axis] - 1)
        values = torch.lerp(values.index_select(dim, low), values.index_select(dim, high), share)
    return values
