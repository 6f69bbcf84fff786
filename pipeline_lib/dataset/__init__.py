"""Step 1, images on disk: where they lie, whether they can be read, what their masks say.

In: a directory in one of five layouts. Out: the index, one row an image; pixels; ground truth. Read `layout` and
`index` first; `acquisition`, `importing` and `synthetic` make such a directory.
"""
