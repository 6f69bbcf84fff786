"""The report of a benchmark: one HTML file that needs nothing beside itself, its figures as files, its tables."""
