"""AUC-sPRO, exact over all distinct scores and at all FPR limits at once, with pixel AUROC, image by image.

sPRO of a defect channel at threshold t is min(TP(t) / saturation area, 1) (Bergmann et al. 2022, "Beyond Dents and
Scratches", eq. 2). The curve is the mean over channels against the false positive rate over all pixels that no
channel marks, straight between consecutive distinct scores, from (0, 0).

Only the highest `saturation area` pixels of a channel move its sPRO, each by 1 / saturation area. A pixel of score v
with `above` normal pixels over it and `at` normal pixels level with it lifts the curve between the false positive
rates a = above / N and b = (above + at) / N, so that up to a limit L it adds to the area::

    L - (a + b) / 2        where b <= L
    (L - a)^2 / (2 (b - a))  where a < L < b
    0                      otherwise

The area is the weighted sum of that over the defect scores: one sort of the normal scores (in batches that fit the
cache) and one search, no loop over thresholds.
"""
