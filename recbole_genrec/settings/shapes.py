"""Sizes of language models from scratch, of which a user may give a few."""

from __future__ import annotations

SHAPES = ("backbone_config", "indexer_config")
"""Keys that hold the settings of a language model from scratch."""


def completed_shape(name: str, value: object, default: object) -> object:
    """A value of one of :data:`SHAPES` with the settings that it leaves out.

    transformers would fill them with those of a full-size model. With a ``model_type`` the value
    describes a model of its own and stands as it is; so does the value of any other key.

    Args:
        name: the key.
        value: what a file or the user says.
        default: what stands below it.
    """
    if name not in SHAPES or not isinstance(value, dict) or not isinstance(default, dict):
        return value
    if "model_type" in value:
        return value
    return {**default, **value}
