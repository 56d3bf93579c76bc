"""What is installed and what runs here, for people and for reports of faults."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

from recbole_genrec.data.vectors.text_encoder import DEFAULT_PACKAGE, locate_encoder
from recbole_genrec.errors import GenRecError
from recbole_genrec.runtime.number_formats import multiplies_bf16
from recbole_genrec.training.accounting import commit, versions

EXTRAS = {
    "serve": ("fastapi", "uvicorn"),
    "tune": ("hyperopt",),
    "constrained-kmeans": ("k_means_constrained",),
    "quantisation": ("bitsandbytes",),
    "docs": ("mkdocs", "mkdocstrings"),
}
"""Packages of each extra, by the names they are imported with."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
LITTLE_MEMORY_GB = 2.0
LITTLE_DISK_GB = 2.0


class Finding(NamedTuple):
    """One line of the doctor.

    Attributes:
        what: was looked at.
        value: was found.
        problem: what that means for a run, empty if nothing.
    """

    what: str
    value: str
    problem: str = ""


def examine() -> list[Finding]:
    """Look at everything that a run depends on; nothing is changed or downloaded."""
    checks: list[Callable[[], list[Finding]]] = [
        _packages,
        _extras,
        _processor,
        _accelerator,
        _memory,
        _folders,
        _text_encoder,
        _browser,
    ]
    findings = []
    for check in checks:
        findings += check()
    return findings


def _packages() -> list[Finding]:
    installed = versions()
    findings = []
    for name, version in installed.items():
        findings.append(Finding(name, version))
    if "recbole" not in installed:
        remedy = "RecBole is missing: python -m recbole_genrec.install"
        findings.append(Finding("recbole", "not installed", remedy))
    findings.append(Finding("commit", commit() or "an installed package, no checkout"))
    return findings


def _extras() -> list[Finding]:
    findings = []
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if find_spec(module) is None]
        value = "installed"
        if missing:
            value = f"not installed: pip install 'recbole-genrec[{extra}]'"
        findings.append(Finding(f"extra {extra}", value))
    return findings


def _processor() -> list[Finding]:
    usable = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        usable = len(os.sched_getaffinity(0))
    threads = torch.get_num_threads()
    problem = ""
    if threads > usable:
        problem = f"more threads than the {usable} usable cores: set OMP_NUM_THREADS={usable}"
    return [
        Finding("system", f"{platform.system()} {platform.machine()}"),
        Finding("cores", f"{usable} usable of {os.cpu_count()}"),
        Finding("threads", f"{threads} of torch", problem),
    ]


def _accelerator() -> list[Finding]:
    if not torch.cuda.is_available():
        return [
            Finding("GPU", "none; default settings are made for CPUs"),
            Finding("bf16 on the CPU", _bf16_on_cpu()),
        ]
    findings = []
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        memory = properties.total_memory / 2**30
        findings.append(Finding(f"GPU {number}", f"{properties.name}, {memory:.0f} GiB"))
    bf16 = "yes" if multiplies_bf16("cuda") else "no: use --precision=fp32"
    return [*findings, Finding("bf16", bf16)]


def _bf16_on_cpu() -> str:
    if multiplies_bf16("cpu"):
        return "yes, in hardware: --precision=bf16 saves time"
    return "works, without hardware for it: --precision=fp32 is faster"


def _memory() -> list[Finding]:
    memory = psutil.virtual_memory()
    free = memory.available / 2**30
    problem = ""
    if free < LITTLE_MEMORY_GB:
        problem = "little memory is free; amazon-beauty needs about 2 GiB"
    return [Finding("memory", f"{free:.1f} of {memory.total / 2**30:.1f} GiB free", problem)]


def _folders() -> list[Finding]:
    findings = []
    for folder in ("saved", ".cache", "log", "dataset"):
        findings.append(Finding(f"./{folder}", *_writable(Path(folder))))
    free = shutil.disk_usage(".").free / 2**30
    problem = ""
    if free < LITTLE_DISK_GB:
        problem = "little space for checkpoints"
    return [*findings, Finding("disk", f"{free:.1f} GiB free here", problem)]


def _writable(folder: Path) -> tuple[str, str]:
    """Whether files can be written into a folder, or where it would be made."""
    place = folder if folder.is_dir() else Path(".")
    try:
        with tempfile.NamedTemporaryFile(dir=place):
            pass
    except OSError as error:
        return "cannot be written to", f"{error.strerror}: start the command in another folder"
    if place is folder:
        return "can be written to", ""
    return "is made when needed", ""


def _text_encoder() -> list[Finding]:
    try:
        folder = locate_encoder("default")
    except GenRecError as error:
        return [Finding("text encoder", "missing", str(error))]
    version = metadata.version(DEFAULT_PACKAGE)
    size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    return [Finding("text encoder", f"all-MiniLM-L6-v2 {version}, {size / 2**20:.0f} MiB")]


def _browser() -> list[Finding]:
    for name in BROWSERS:
        path = shutil.which(name)
        if path is not None:
            return [Finding("browser for tests", path)]
    return [Finding("browser for tests", "none; tests of pages are skipped")]
