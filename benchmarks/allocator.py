"""CPU seconds of a language-model loss with and without ``keep_freed_memory``; each in a process
of its own, in turn.

python benchmarks/allocator.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys

CODE = """
import resource, sys, torch
from recbole_genrec.compat import keep_freed_memory
torch.set_num_threads(1)
if sys.argv[1] == "kept":
    assert keep_freed_memory()
hidden = torch.randn(1950, 128, requires_grad=True)
weight = torch.randn(8000, 128, requires_grad=True)
target = torch.randint(0, 8000, (1950,))
def step():
    torch.nn.functional.cross_entropy(hidden @ weight.T, target).backward()
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF)
for _ in range(20):
    step()
after = resource.getrusage(resource.RUSAGE_SELF)
print(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
"""


def main(repeats: int = 5) -> None:
    """Print medians and their ratio; 1,950 positions, 8,000 words, width 128: a batch of STORE's
    reconstruction task.
    """
    seconds: dict[str, list[float]] = {"default": [], "kept": []}
    for _ in range(repeats):
        for name in seconds:
            output = subprocess.run(
                [sys.executable, "-c", CODE, name], capture_output=True, text=True, check=True
            ).stdout
            seconds[name].append(float(output))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        print(f"{name:<8} {median:.2f} CPU-s for 20 steps")
    print(f"ratio default / kept: {medians['default'] / medians['kept']:.2f}")


if __name__ == "__main__":
    main()
