"""Step 8, figures: AUROC of images, AUC-sPRO of pixels, intervals, thresholds and what they decide.

In: scores, maps and ground truth. Out: the metrics of a category. Read `evaluation` first, then `category`; `spro` is
the pixel metric.
"""
