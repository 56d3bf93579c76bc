"""The bars that transformers shows while it loads weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def no_loading_bar() -> Iterator[None]:
    """Load weights without the bar of transformers; downloads keep theirs."""
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils import logging

    shows_weights = logging.is_progress_bar_enabled()
    shows_downloads = not are_progress_bars_disabled()
    logging.disable_progress_bar()  # of both
    if shows_downloads:
        enable_progress_bars()
    try:
        yield
    finally:
        if shows_weights:
            logging.enable_progress_bar()
        if shows_downloads:
            enable_progress_bars()
