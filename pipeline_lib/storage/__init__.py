"""Bytes on disk: the artifact store by content hash, files written whole, locks, scratch space, what may be removed.

In: frames, arrays, JSON values. Out: manifests, and the same values back, checked. Read `artifact_store` first.
"""
