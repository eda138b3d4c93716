"""How long torch's threads loop while they wait for the next operation."""

from __future__ import annotations

import os

SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")
"""Variables by which users decide that themselves."""

LOOPS = 10_000
"""About half a millisecond, longer than most gaps between operations of a network; GCC's default is 30 times that."""


def limit_idle_loops() -> None:
    """Let idle threads of torch sleep after half a millisecond.

    An operation on all cores ends with its slowest thread. Where another program uses one of the cores, that thread
    waits for its turn, and the others loop, by default for longer than the whole operation takes. Training a small
    network then takes many times as long, while on free cores shorter loops cost nothing; `benchmarks/README.md` has
    the measurements ("Idle threads").

    To be called before torch is imported, since GCC's library reads its variables once. Only for processes that the
    command line starts, and not where the user has set one of `SETTINGS`.
    """
    if not any(name in os.environ for name in SETTINGS):
        os.environ["GOMP_SPINCOUNT"] = str(LOOPS)
