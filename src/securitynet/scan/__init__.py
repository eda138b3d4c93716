"""Finds trained classifiers in folders of cloned repositories, and proposes entries for the catalog.

Weights are read as data, code and configurations as text: nothing that is found is run.
"""

from __future__ import annotations

from securitynet.scan.candidates import Candidate, Evidence
from securitynet.scan.scan import ScanReport, scan

__all__ = ["Candidate", "Evidence", "ScanReport", "scan"]
