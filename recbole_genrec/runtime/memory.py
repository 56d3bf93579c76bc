"""How the process keeps memory."""

from __future__ import annotations

import ctypes


def keep_freed_memory() -> bool:
    """Let glibc keep large freed blocks instead of returning them to the system after every batch; ``False`` where there is no glibc.

    PyTorch allocates the logits of each batch anew; above 32 MiB every allocation is mapped and page-faulted again, which costs up to a
    third of the CPU time of a training step (``benchmarks/allocator.py``). Called by our commands, for the whole process.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    m_trim_threshold, m_mmap_threshold, largest = -1, -3, 2**31 - 1
    return bool(mallopt(m_mmap_threshold, largest)) and bool(mallopt(m_trim_threshold, largest))
