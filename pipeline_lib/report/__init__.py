"""The report of one experiment: one self-contained HTML file, for inspectors and researchers."""
