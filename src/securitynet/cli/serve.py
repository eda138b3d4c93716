"""`securitynet serve`: the web page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from securitynet.cli import console


def serve(
    db: Annotated[
        str | None,
        typer.Option("--db", metavar="URL", help="The catalog's database: a URL or a SQLite file.", show_default=False),
    ] = None,
    studies: Annotated[
        list[Path] | None,
        typer.Option("--studies", metavar="DIR", help="Folder of studies (can be repeated).", show_default=False),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option("--results", metavar="DIR", help="Folder of results, for a leaderboard.", show_default=False),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            "--keys",
            metavar="DIR",
            help="Folder with the public keys (NAME.pub) of those whose signed results are ranked.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 for any free one.")] = 8421,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            envvar="SECURITYNET_TOKEN",
            help="Token that visitors need. Generated and printed if the address can be reached from other machines.",
            show_default=False,
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option("--processes", min=1, max=64, help="Processes that answer visitors; more for many at once.")
    ] = 1,
) -> None:
    """Serve the catalog as a web page and a JSON API, read-only and without loading anything from other servers.

    By default it listens on this machine only. With another --host, every visitor needs a token.

    Example: securitynet serve --studies studies --results results --keys keys
    """
    import secrets

    from securitynet.errors import ConfigurationError, MissingExtra

    try:
        from securitynet.web.security import is_loopback
        from securitynet.web.serving import PageOptions, open_socket, prepare_server, serve_page
    except ModuleNotFoundError as error:
        if error.name in ("uvicorn", "fastapi", "starlette", "polars"):
            raise MissingExtra(str(error.name), "web", "The web page") from None
        raise
    for folder in studies or []:
        if not folder.is_dir():
            raise ConfigurationError(f"There is no folder {folder}.", hint="Name a folder with results of studies.")
    if results is not None and not results.is_dir():
        raise ConfigurationError(f"There is no folder {results}.", hint="Name a folder with results.")
    if results is None and keys is not None:
        raise ConfigurationError("--keys says who signed results, and there are none.", hint="Give --results too.")
    local = is_loopback(host)
    if token is not None and len(token) < 8:
        raise ConfigurationError(
            "A token of fewer than 8 characters is easy to guess.", hint="Leave --token out to have one generated."
        )
    if not local and token is None:
        token = secrets.token_urlsafe(24)
    with open_socket(host, port) as listening:
        names = frozenset({"localhost", "127.0.0.1", "[::1]", host.lower(), f"[{host}]"}) if local else None
        config = prepare_server(PageOptions(db, tuple(studies or ()), results, keys, token, names), processes)
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listening.getsockname()[1]}/"
        if token is not None:
            if not local:
                console.stderr.print(
                    f"{host} can be reached from other machines, so visitors need a token. Anybody who has this "
                    "address can read the catalog, the studies and the results; it travels unencrypted unless a proxy "
                    "adds TLS.",
                    markup=False,
                )
            address += f"?token={token}"
        console.stdout.print(address, soft_wrap=True, markup=False)
        serve_page(config, listening)
