"""Errors a user can act on: what was wrong, where, and what to do."""


class GenRecError(ValueError):
    """Base of every error this package raises on purpose."""


class ConfigError(GenRecError):
    """A key is unknown, has a bad value, or contradicts another key."""


class DataError(GenRecError):
    """A dataset file or the item text is missing or unusable."""


class ArtefactError(GenRecError):
    """A stored file (codes, embeddings, checkpoint) is damaged or belongs to something else."""


class BackboneError(GenRecError):
    """A language model or sentence encoder cannot be built or loaded."""


class ProcessError(GenRecError):
    """One of several processes has ended before its work was done."""
