"""Exact nearest neighbours on a GPU: a product of float16 names candidates, differences in float64 decide.

`DeviceRows` holds rows for this and for pipeline_lib.coreset.on_device: on the device where they fit, else in the
memory of the host, from where blocks of them are copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from pipeline_lib.neighbors.bfloat16_products import underflow
from pipeline_lib.neighbors.short_forms import FLOAT32_UNIT
from pipeline_lib.when_needed import torch

FREE_SHARE = 0.4  # of the free memory that the rows may take
BLOCK_BYTES = 256 << 20  # of a block of rows, or of pairs, in float64
PRODUCT_BYTES = 1 << 30
FLOAT64_UNIT = 2.0**-53
TENSOR_CORE_UNIT = 2.0**-22
LARGEST_NORM = 2.0**7  # of a row in float16; queries may be as far out as FAR
FAR = 2.0**14


def free_bytes(device: torch.device) -> float:
    """What a GPU has left; of the CPU, no matter how much."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else np.inf


def to_host(*tensors: torch.Tensor) -> list[np.ndarray]:
    """Every wait for the GPU, beside those of `nonzero` and of rows that lie in the host's memory."""
    return [tensor.cpu().numpy() for tensor in tensors]


def on_device(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """A copy; on the CPU a view."""
    return torch.from_numpy(values if values.flags.writeable else values.copy()).to(device)


class DeviceRows:
    """Rows (rows, dim), float16, float32 or float64, about their mean and scaled by a power of two.

    `largest` is the norm that the farthest of them has then, to within a factor of two; 0 where all are equal.
    `squares` are their squared norms, float64 (rows,).
    """

    def __init__(self, values: np.ndarray, device: torch.device, *, largest: float = 1.0, copies: float = 1.0) -> None:
        """`copies`: how many times the memory of the rows is needed. Raises OverflowError where a square overflows."""
        self.values, self.device = np.ascontiguousarray(values), device
        self.resident = copies * values.nbytes < FREE_SHARE * free_bytes(device)
        self.step = max(1, BLOCK_BYTES // (8 * values.shape[1]))
        self._on_device: torch.Tensor | None = None
        if self.resident:
            self._on_device = torch.empty(values.shape, dtype=torch.from_numpy(values[:0].copy()).dtype, device=device)
            for part in self.blocks():
                self._on_device[part] = on_device(self.values[part], device)
        with np.errstate(over="ignore", invalid="ignore"):
            center = values[:: max(1, len(values) // 1024)].mean(axis=0, dtype=np.float64)
        self.center = torch.from_numpy(center).to(device)
        self.scale = 1.0
        self.squares = torch.cat([self.scaled(self.block(part)).square().sum(dim=1) for part in self.blocks()])
        norm = float(to_host(self.squares.max().sqrt())[0])
        if not np.isfinite(norm):
            raise OverflowError
        if norm > 0:
            self.scale = largest * 2.0 ** -float(np.frexp(norm)[1])
            self.squares *= self.scale**2

    def __len__(self) -> int:
        return len(self.values)

    def blocks(self) -> Iterator[slice]:
        """All rows, so many at a time that float64 copies do no harm."""
        return (slice(start, start + self.step) for start in range(0, len(self.values), self.step))

    def block(self, part: slice) -> torch.Tensor:
        """Rows as they came, on the device."""
        return on_device(self.values[part], self.device) if self._on_device is None else self._on_device[part]

    def take(self, numbers: torch.Tensor) -> torch.Tensor:
        """The same of row numbers, int64 on the device."""
        if self._on_device is None:
            return on_device(self.values[to_host(numbers)[0]], self.device)
        return self._on_device[numbers]

    def scaled(self, values: torch.Tensor) -> torch.Tensor:
        """Rows as they came, minus the center, scaled: float64."""
        return (values.double() - self.center) * self.scale


def squared_differences(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """float64 (pairs,): |left - right|^2 of float64 (pairs, dim), exact to about log2(dim) roundings.

    Summed by halves, an order in which every device and every number of pairs gives the same bits: equal pairs tie.
    """
    values = left - right
    values *= values
    while (width := values.shape[1]) > 1:
        half = width // 2
        sums = values[:, :half] + values[:, half : 2 * half]
        if width % 2:
            sums[:, 0] += values[:, -1]
        values = sums
    return values[:, 0]


def pair_squares(
    left: Callable[[torch.Tensor], torch.Tensor],
    numbers: torch.Tensor,
    right: Callable[[torch.Tensor], torch.Tensor],
    others: torch.Tensor,
    dim: int,
) -> torch.Tensor:
    """`squared_differences` of rows `left(numbers)` and `right(others)` as they came, a few at a time."""
    result = torch.empty(len(numbers), dtype=torch.float64, device=numbers.device)
    step = max(1, BLOCK_BYTES // (8 * dim))
    for start in range(0, len(numbers), step):
        part = slice(start, start + step)
        result[part] = squared_differences(left(numbers[part]).double(), right(others[part]).double())
    return result


def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """left @ right.T; of float16 in float32, by tensor cores where there are some."""
    if left.dtype != torch.float16:
        return left @ right.T
    if left.device.type == "cuda":
        return torch.mm(left, right.T, out_dtype=torch.float32)
    return left.float() @ right.float().T


def product_unit(terms: int, dtype: torch.dtype) -> float:
    """A product of that many terms, and a few roundings beside it, are off by at most this times the terms' sizes' sum.

    float32 and float64 are summed in some order, each addition rounded to the nearest (Jeannerod & Rump 2013, see
    bfloat16_products). Tensor cores multiply float16 exactly and add at least four products and a sum at once: all are
    cut to 2^-23 of the largest of them or finer, as is the result (Fasi, Higham, Mikaitis & Pranesh 2021, "Numerical
    behavior of NVIDIA tensor cores", PeerJ Comput. Sci. 7:e330; Khattak & Mikaitis 2025, "Accurate models of NVIDIA
    tensor cores", arXiv 2512.07004). That is 3/2 cuts a term, less than 2^-22.
    """
    units = {torch.float16: TENSOR_CORE_UNIT, torch.float32: FLOAT32_UNIT, torch.float64: FLOAT64_UNIT}
    return (terms + 16) * units[dtype]


def product_is_accurate(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether products keep to `product_unit` on examples: NVIDIA documents no bound, and float32 may be set to TF32.

    float64's do.
    """
    if dtype == torch.float64:
        return True
    rng = np.random.default_rng(0)
    for terms in (16, 1600):
        for make in (rng.standard_normal, rng.random):
            left, right = (torch.from_numpy(make((64, terms))).to(device, dtype) for _ in range(2))
            try:
                found = product(left, right).double()
            except TypeError:  # a torch before 2.8
                return False
            left, right = left.double(), right.double()
            allowed = product_unit(terms, dtype) * (left.abs() @ right.abs().T)
            if bool(((found - left @ right.T).abs() > allowed).any()):
                return False
    return True


class DeviceSearch:
    """Rows float32 (rows, dim), finite, for exact search on `device`. Raises torch.OutOfMemoryError.

    A row x is rounded to float16, x', by which a distance changes by at most |x - x'|, which is measured. With u the
    `product_unit`, p = |y'|^2 (1 - u) - 2 q'.y' is at most |q' - y'|^2 - |q'|^2 (1 - u). So of rows at most r from a
    query q, p is at most (r + |q - q'| + the largest |y - y'|)^2 - |q'|^2 (1 - u).
    """

    def __init__(self, rows: np.ndarray, device: torch.device) -> None:
        dtypes = (torch.float16, torch.float32, torch.float64)
        self.dtype = next(dtype for dtype in dtypes if product_is_accurate(device, dtype))
        self.rows = DeviceRows(rows, device, largest=LARGEST_NORM, copies=2.0)
        self.unit = product_unit(rows.shape[1], self.dtype)
        self.underflow = underflow(rows.shape[1])
        self._forms = [self._form(part) for part in self.rows.blocks()] if self.rows.resident else None

    def _form(self, part: slice) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of a block: x', |x'|^2 (1 - u), and the largest |x - x'|."""
        centered = self.rows.scaled(self.rows.block(part))
        form = centered.to(self.dtype)
        rounded = form.double()
        lowered = rounded.square().sum(dim=1) * (1 - self.unit)
        return form, lowered.to(self._product_dtype), squared_differences(centered, rounded).max().sqrt()

    @property
    def _product_dtype(self) -> torch.dtype:
        return torch.float32 if self.dtype == torch.float16 else self.dtype

    def search(self, queries: np.ndarray, kept: int) -> tuple[np.ndarray, np.ndarray]:
        """(distances float32, indices int64), both (queries, kept), nearest first. `kept` is at most the rows.

        Equal distances: the lowest index first.
        """
        distances = np.empty((len(queries), kept), np.float32)
        indices = np.empty((len(queries), kept), np.int64)
        step = max(1, PRODUCT_BYTES // (4 * min(len(self.rows), self.rows.step)))
        with torch.inference_mode():
            for start in range(0, len(queries), step):
                part = slice(start, start + step)
                found = self._search_block(on_device(queries[part], self.rows.device), kept)
                distances[part], indices[part] = to_host(*found)
        return distances, indices

    def _search_block(self, raw: torch.Tensor, kept: int) -> tuple[torch.Tensor, torch.Tensor]:
        centered = self.rows.scaled(raw)
        far = centered.square().sum(dim=1) > FAR**2  # compared with every row
        centered[far] = 0.0
        form = centered.to(self.dtype)
        rounded = form.double()
        moved = squared_differences(centered, rounded).sqrt()
        squares = rounded.square().sum(dim=1) * (1 - self.unit)
        best = torch.full((len(raw), kept), torch.inf, dtype=torch.float64, device=raw.device)
        indices = torch.full((len(raw), kept), len(self.rows), device=raw.device)
        for number, part in enumerate(self.rows.blocks()):
            rows, lowered, largest_moved = self._forms[number] if self._forms else self._form(part)
            products = product(-2.0 * form, rows)
            products += lowered
            reach = self._reach(products, raw, part.start, best)
            limit = (reach + moved + largest_moved) ** 2 - squares + self.underflow
            limit[far] = torch.inf
            queries, others = torch.nonzero(products <= upwards(limit, products.dtype)[:, None], as_tuple=True)
            others += part.start
            measured = self._measure(raw, queries, others)
            best, indices = _nearest(best, indices, queries, others, measured)
        return best.sqrt().float(), indices

    def _measure(self, raw: torch.Tensor, queries: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return pair_squares(raw.__getitem__, queries, self.rows.take, rows, raw.shape[1])

    def _reach(self, products: torch.Tensor, raw: torch.Tensor, start: int, best: torch.Tensor) -> torch.Tensor:
        """No less than the scaled distance to the `kept`-th nearest row: that to as many that seem near, or known."""
        kept = best.shape[1]
        reach = best[:, -1].sqrt() * self.rows.scale
        if kept <= products.shape[1]:
            near = products.topk(kept, largest=False).indices if kept > 1 else products.argmin(dim=1, keepdim=True)
            queries = torch.arange(len(raw), device=raw.device).repeat_interleave(kept)
            measured = self._measure(raw, queries, near.flatten() + start).view(-1, kept)
            reach = torch.minimum(reach, measured.amax(dim=1).sqrt() * self.rows.scale)
        return reach


def upwards(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Values of the dtype that are not below `values`."""
    result = values.to(dtype)
    return torch.nextafter(result, torch.full_like(result, torch.inf))


def _nearest(
    best: torch.Tensor, indices: torch.Tensor, queries: torch.Tensor, rows: torch.Tensor, measured: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """`best` (queries, kept) and `indices` of lower rows, with pairs in order of their rows; the lowest of equals."""
    count, kept = best.shape
    number = torch.arange(count, device=best.device)
    squares = torch.cat([best.flatten(), measured])
    owners = torch.cat([number.repeat_interleave(kept), queries])
    everyone = torch.cat([indices.flatten(), rows])
    squares, order = squares.sort(stable=True)
    owners, again = owners[order].sort(stable=True)
    chosen = torch.searchsorted(owners, number)[:, None] + torch.arange(kept, device=best.device)
    return squares[again][chosen], everyone[order[again]][chosen]
