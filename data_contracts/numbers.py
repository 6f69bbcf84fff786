"""The one rule for numbers that a person gives outside a configuration: finite, and within what is accepted."""

from __future__ import annotations

import math

from data_contracts.errors import ConfigError


def require_number(
    name: str, value: float, *, at_least: float | None = None, above: float | None = None, below: float | None = None
) -> None:
    """Raise ConfigError unless `value` is finite, `value >= at_least`, `value > above` and `value < below`."""
    bounds = {"at least": at_least, "above": above, "below": below}
    accepted = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)
    within = (
        math.isfinite(value)
        and (at_least is None or value >= at_least)
        and (above is None or value > above)
        and (below is None or value < below)
    )
    if not within:
        raise ConfigError(f"{name} is {value:g}; it accepts a finite number{f' {accepted}' if accepted else ''}")
