"""The library form: fit and predict, alone or in a federation, and models on disk.

In: images or data sets. Out: a model that scores. Read `patchcore` first, then `federated_patchcore`.
"""
