"""Groups: images of one part, one place or one tile.

In: the index. Out: a group for images that do not stand alone. `assignment` applies `dataset.group`; `near_copies`
finds images that are alike, on the `thumbnails` that are made where images are decoded.
"""
