"""Step 5 at a client: which rows it sends, and what it keeps to itself.

In: the client's own patch features, and the server's banks in later rounds. Out: a coreset a bank; provenance, which
stays here; scores for thresholds. Read `selection` first, then `rounds`.
"""
