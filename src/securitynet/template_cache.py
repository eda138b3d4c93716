"""Translated templates, kept beside Python's own bytecode so that they are translated once and not in each process."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from pathlib import Path

from jinja2.bccache import Bucket, BytecodeCache
from typing_extensions import override

from securitynet.files import write_atomically


class TemplateCache(BytecodeCache):
    """Keeps them where Python keeps the bytecode of a module of that name, and only if Python does.

    It is then as trustworthy as the package itself. One environment may use it for each folder of templates.
    """

    @override
    def get_cache_key(self, name: str, filename: str | None = None) -> str:
        return "" if filename is None else importlib.util.cache_from_source(f"{filename}.py")

    @override
    def load_bytecode(self, bucket: Bucket) -> None:
        try:
            with Path(bucket.key).open("rb") as stream:
                bucket.load_bytecode(stream)  # which compares the digest of the template
        except Exception:  # absent, or damaged: whatever unpickling may raise
            bucket.reset()

    @override
    def dump_bytecode(self, bucket: Bucket) -> None:
        if bucket.key and not sys.dont_write_bytecode:
            with contextlib.suppress(OSError), write_atomically(Path(bucket.key)) as stream:
                bucket.write_bytecode(stream)
