"""Speed and memory of fedpatch against its peers: `python -m benchmarks --help`."""
