"""New images with a finished model: open it, decide, explain, and the shelf of models that are in use.

In: a run directory and images. Out: a decision an image, and its pictures. Read `run_model` first, then `session`.
"""
