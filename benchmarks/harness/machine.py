"""What was measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import torch


def machine(device: str) -> dict[str, object]:
    """The machine's class, without its name: processor, cores, memory, system, GPU, Python, torch."""
    facts: dict[str, object] = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory() / 2**30) if memory() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device.startswith("cuda"):
        facts["gpu"] = torch.cuda.get_device_name(device)
    return facts


def processor() -> str:
    """The model's name, where the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def memory() -> int | None:
    """Bytes of the machine's memory, where the system tells it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def revision(folder: Path) -> str:
    """The checkout's commit, with a + if files differ from it; empty where there is no git."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
