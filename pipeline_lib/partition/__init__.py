"""Step 2, who holds which training image.

In: the index. Out: a client for each training image. Read `shards` (positions alone), then `assignment` (the index).
"""
