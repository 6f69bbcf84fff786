"""Exact distances from rows to rows, by bounds that leave few pairs to compute.

In: two float32 matrices. Out: the nearest rows and their distances, exact to float64 differences. Read `exact` first:
`bounds` and `short_forms` say which pairs cannot win, `block_threads` and `on_device` are its engines.
"""
