"""Settings before anything runs: YAML files, the page of all keys, seeds, the machine's hardware.

In: YAML and overrides. Out: a checked `ExperimentConfig`; one random generator a use. Read `files` first.
"""
