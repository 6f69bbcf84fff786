"""Step 9, what a run leaves: its directory, its documents, its tables.

In: metrics and manifests. Out: metrics.json and the files beside it. Read `run_directory` first.
"""
