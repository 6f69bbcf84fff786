"""Stations on machines of their own: what crosses the shared place, and what the coordinator makes of it.

In: publications of other machines, checked. Out: pooled figures, thresholds, the run. Read `exchange` first. The
coordinator reads no image.
"""
