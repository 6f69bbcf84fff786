"""Step 7, anomaly maps: files, regions, pictures. No map is rescaled by its own range.

In: maps of patches. Out: maps of pixels and what people see of them. Read `map_files` first.
"""
