"""The page behind a socket: in this process, or in several that share the socket and the machine's cores."""

from __future__ import annotations

import functools
import gc
import multiprocessing
import os
import signal
import socket
import threading
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

import securitynet.catalog
from securitynet.errors import ConfigurationError
from securitynet.results.collection import read_keys
from securitynet.web import reading
from securitynet.web.app import create_app
from securitynet.web.results import Results


@dataclass(frozen=True)
class PageOptions:
    """What a page shows, and to whom.

    Attributes:
        db: The catalog's database; the user's own by default.
        studies: Folders of studies.
        results: Folder of results, for a leaderboard.
        keys: Folder with the public keys of those whose signed results are ranked.
        token: What a visitor must show.
        names: Names under which the page may be asked for; None for any.
    """

    db: str | None = None
    studies: tuple[Path, ...] = ()
    results: Path | None = None
    keys: Path | None = None
    token: str | None = None
    names: frozenset[str] | None = None

    def make_app(self) -> FastAPI:
        """The application.

        Raises:
            SecurityNetError: If the database cannot be opened, or a key cannot be read.
        """
        collected = None
        if self.results is not None:
            collected = Results(self.results, read_keys(self.keys) if self.keys is not None else {})
        return create_app(self.db, studies=self.studies, results=collected, token=self.token, names=self.names)


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        host: Address of this machine; that of version 6 may stand in brackets.
        port: Port; 0 for any free one.

    Raises:
        ConfigurationError: If the address is not this machine's, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Asyncio turns off Nagle's algorithm only where the protocol is stated; with it, each answer waits for 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host.strip("[]"), port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise ConfigurationError(
            f"The server can't listen on {host}, port {port}: {error.strerror or error}.", hint="Choose another --port."
        ) from None
    return listening


def prepare_server(options: PageOptions, processes: int) -> uvicorn.Config:
    """Check that the page can be made, and configure its server.

    Several processes map one copy of the columns of a large catalog, which is read here first.

    Args:
        options: Of the page.
        processes: How many processes will answer visitors.

    Raises:
        SecurityNetError: See `PageOptions.make_app`.
    """
    quiet = functools.partial(uvicorn.Config, log_level="warning", access_log=False, server_header=False)
    if processes == 1:
        app = options.make_app()
        _spare_imports()
        return quiet(app)
    if options.keys is not None:
        read_keys(options.keys)
    reading.map_frames(securitynet.catalog.open(options.db).database)
    return quiet(functools.partial(_make_app_of_process, options), factory=True, workers=processes)


def serve_page(config: uvicorn.Config, listening: socket.socket) -> None:
    """Answer visitors until the process is stopped.

    Args:
        config: From `prepare_server`.
        listening: The socket.
    """
    if config.factory:
        Multiprocess(config, sockets=[listening]).run()
    else:
        uvicorn.Server(config).run(sockets=[listening])


def _make_app_of_process(options: PageOptions) -> FastAPI:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    app = options.make_app()
    _spare_imports()
    return app


def _end_with_parent() -> None:
    """End this process when the one that started it was killed: nobody else would, and it holds the port."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _spare_imports() -> None:
    """Exempt imported modules from garbage collection, which would hold up every visitor for 0.15 s."""
    gc.collect()
    gc.freeze()
