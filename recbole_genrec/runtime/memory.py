"""Memory of the process: how it is kept, and how much was used."""

from __future__ import annotations

import ctypes
import sys

import psutil


def keep_freed_memory() -> bool:
    """Let glibc keep large freed blocks instead of returning them to the system after every batch.

    PyTorch allocates the logits of each batch anew. Above 32 MiB every allocation is mapped and
    page-faulted again, which costs up to a third of the CPU time of a training step
    (``benchmarks/allocator.py``). Our commands call this function for the whole process.

    Returns:
        Whether glibc is there and has accepted the settings.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # no glibc; on Windows CDLL wants a name
        return False
    m_trim_threshold = -1
    m_mmap_threshold = -3
    largest = 2**31 - 1
    accepted = mallopt(m_mmap_threshold, largest) and mallopt(m_trim_threshold, largest)
    return bool(accepted)


def peak_memory_mb() -> float:
    """Highest resident memory of this process so far, MiB."""
    peak = getattr(psutil.Process().memory_info(), "peak_wset", None)  # on Windows
    if peak is not None:
        return peak / 2**20

    # psutil does not report the peak of other systems; this module exists on all of them.
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if sys.platform == "darwin":
        return peak / 2**20  # bytes there
    return peak / 2**10  # KiB
