"""The errors that a user is meant to read: one line each, saying what was wrong, what it got and what to do."""

from __future__ import annotations


class FedpatchError(Exception):
    """Base of all errors that are reported as one clear line (exit status 1), without a traceback."""


class ConfigError(FedpatchError):
    """A configuration key or value that is not accepted."""


class DatasetError(FedpatchError):
    """A data set that cannot be used as it lies on disk."""


class ImageError(DatasetError):
    """One image or mask that cannot be read or does not fit."""


class WeightsError(FedpatchError):
    """Backbone weights that are not there or do not fit. Random weights are never used silently."""


class DownloadError(WeightsError):
    """Weights that could not be fetched this time; another try may succeed."""


class ArtifactError(FedpatchError):
    """An artifact that is missing, damaged or of the wrong kind."""


class UploadError(FedpatchError):
    """A client's upload that the server refuses; the message names the client and the reason."""


class QuorumError(FedpatchError):
    """Fewer clients delivered, or have images, than `federated.min_clients` asks for."""


class ResourceError(FedpatchError):
    """A run that this machine's memory or disk cannot hold."""


class ServerError(FedpatchError):
    """A Prefect server that does not answer."""


class PlaceError(FedpatchError):
    """A directory that has to be written and cannot be."""
