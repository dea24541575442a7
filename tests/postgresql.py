"""A PostgreSQL server of a test's own, in a temporary folder, stopped with it."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FOLDERS = "/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin"
USER = "hwsearch"


def find_server() -> Path | None:
    """The folder of `initdb` and `pg_ctl`; Debian keeps them off the path."""
    found = shutil.which("initdb")
    if found and (Path(found).resolve().parent / "pg_ctl").exists():
        return Path(found).resolve().parent
    folders = [place for pattern in FOLDERS for place in sorted(Path("/").glob(pattern[1:]))]
    return next((place for place in reversed(folders) if (place / "initdb").exists()), None)


@contextmanager
def postgresql() -> Iterator[str]:
    """The storage URL of a fresh database; skips where there is no server."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (hwsearch[postgresql])")
    programs = find_server()
    if programs is None:
        pytest.skip("there is no PostgreSQL server: install postgresql")
    as_root = os.geteuid() == 0  # whom PostgreSQL refuses to serve
    if as_root and not shutil.which("runuser"):
        pytest.skip("PostgreSQL does not run as root, and there is no runuser")
    with tempfile.TemporaryDirectory(prefix="hwsearch-pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if as_root:
            shutil.chown(folder, "postgres")
        prefix = ["runuser", "-u", "postgres", "--"] if as_root else []

        def call(program: str, *arguments: str) -> None:
            command = [*prefix, str(programs / program), "-D", str(folder / "data"), *arguments]
            with (folder.parent / f"{folder.name}.log").open("a") as log:
                subprocess.run(command, check=True, cwd="/", stdout=log, stderr=log, timeout=120)

        port = _free_port()
        options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off"
        try:
            call("initdb", "-U", USER, "-A", "trust", "--no-sync")
            call("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
            yield f"postgresql://{USER}@127.0.0.1:{port}/postgres"
        finally:
            if (folder / "data" / "postmaster.pid").exists():
                call("pg_ctl", "-w", "-m", "immediate", "stop")
            (folder.parent / f"{folder.name}.log").unlink(missing_ok=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
