"""Before a run: what it will compute, hold and take, and whether this machine fits.

In: a configuration and the data set's index. Out: counts, bytes, seconds. Read `experiment` first.
"""
