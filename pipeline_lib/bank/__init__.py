"""Step 6, the memory bank: normal patches, and how far a new one is from them.

In: bank rows and patch features. Out: distances, anomaly maps, scores, the normal patches most like one. Read
`memory_bank` first, then `scoring`.
"""
