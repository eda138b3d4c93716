"""Says what `pip-audit` found, and what it did not look up.

    python tools/report_vulnerabilities.py ANSWER CONTROL

Both are its answers as JSON: on the pinned packages, and on old versions with published vulnerabilities. Where the
control names none, the database did not answer, whatever pip-audit says about the pinned ones. The exit code is 1 for a
vulnerability.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def read_packages(path: Path) -> list[dict[str, Any]]:
    """The packages of an answer; none if pip-audit ended without one."""
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["dependencies"])
    except (OSError, ValueError):
        return []


def report(packages: list[dict[str, Any]], control: list[dict[str, Any]]) -> tuple[list[str], bool]:
    """(lines to print, whether a package has a known vulnerability)."""
    flaws = [(package, flaw) for package in packages for flaw in package.get("vulns", ())]
    if flaws:
        lines = [
            f"{package['name']} {package['version']}: {flaw['id']}, "
            f"fixed in {', '.join(flaw['fix_versions']) or 'no version yet'}"
            for package, flaw in flaws
        ]
        return [*lines, f"Packages with known vulnerabilities: {len({package['name'] for package, _ in flaws})}."], True
    if not any(package.get("vulns") for package in control):
        return ["The database of vulnerabilities did not answer: nothing was checked."], False
    skipped = [package["skip_reason"] for package in packages if "skip_reason" in package]
    summary = f"{len(packages) - len(skipped)} of {len(packages)} packages were checked: no known vulnerabilities."
    return [summary, *(f"Not checked: {reason}" for reason in skipped)], False


def main() -> None:
    """Print the report on the two files that the command line names."""
    lines, vulnerable = report(*(read_packages(Path(path)) for path in sys.argv[1:3]))
    print(*lines, sep="\n")
    raise SystemExit(1 if vulnerable else 0)


if __name__ == "__main__":
    main()
