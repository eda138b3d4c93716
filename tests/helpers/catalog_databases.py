"""Catalogs to test with: a fresh SQLite file, and a fresh database on a PostgreSQL server.

The server is the one that ``SECURITYNET_TEST_POSTGRES`` names (a URL that may create databases), or one that is started
here from the programs found on this machine. Without either the PostgreSQL tests skip, saying so; with
``SECURITYNET_REQUIRE_POSTGRES=1`` they fail.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

import securitynet.catalog
from securitynet.catalog.catalog import Catalog

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "securitynet-database.md"


@pytest.fixture
def published() -> Path:
    if not PUBLISHED.exists():
        pytest.skip("the published tables are not beside the repository")
    return PUBLISHED


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a server where databases can be made."""
    given = os.environ.get("SECURITYNET_TEST_POSTGRES")
    if given:
        yield given
        return
    with contextlib.ExitStack() as stack:
        try:
            url = stack.enter_context(_started_server())
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            reason = f"no PostgreSQL server: {error}"
            if os.environ.get("SECURITYNET_REQUIRE_POSTGRES") == "1":
                pytest.fail(f"{reason}; SECURITYNET_REQUIRE_POSTGRES=1 asks for one")
            pytest.skip(f"{reason}; run .ci/postgres, or set SECURITYNET_TEST_POSTGRES")
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of an empty database, on both kinds."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'catalog.sqlite'}"
        return
    server = sa.engine.make_url(request.getfixturevalue("postgres_server")).set(drivername="postgresql+psycopg")
    name = f"catalog_{uuid.uuid4().hex[:12]}"
    administrator = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with administrator.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    yield server.set(database=name).render_as_string(hide_password=False)
    with administrator.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    administrator.dispose()


@pytest.fixture
def catalog(url: str) -> Iterator[Catalog]:
    """An empty catalog, on both kinds of database."""
    with securitynet.catalog.open(url) as opened:
        yield opened


@pytest.fixture
def sqlite_catalog(tmp_path: Path) -> Iterator[Catalog]:
    """An empty catalog on SQLite, where the kind of database makes no difference."""
    with securitynet.catalog.open(str(tmp_path / "catalog.sqlite")) as opened:
        yield opened


@contextlib.contextmanager
def _started_server() -> Iterator[str]:
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="securitynet-postgres-"))
    # The server refuses to run as root; Debian's package makes a user for it.
    user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(*command: str) -> None:
        who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
        log = folder / "commands.log"
        with log.open("ab") as stream:
            subprocess.run(command, check=True, stdout=stream, stderr=stream, cwd="/", timeout=120, **who)

    data = str(folder / "data")
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"
    try:
        run(str(programs / "initdb"), "-D", data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
        run(str(programs / "pg_ctl"), "-D", data, "-l", str(folder / "server.log"), "-w", "-o", options, "start")
        try:
            yield f"postgresql+psycopg://tester@127.0.0.1:{port}/postgres"
        finally:
            run(str(programs / "pg_ctl"), "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for place in places:
        if (place / "initdb").exists():
            return place
    raise FileNotFoundError("initdb is not installed")
