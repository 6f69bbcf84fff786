"""Step 3, from images to patches.

In: image files. Out: patch features (patch, dim), float16, stored once an image and backbone. Read `backbone`,
`extractor`, then `extraction`.
"""
