"""A PostgreSQL server of the tests' own."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.prefect_stack import free_port


def programs() -> Path | None:
    """Where initdb and postgres lie: Debian keeps them off the path."""
    found = [*sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)]
    on_path = shutil.which("initdb")
    return found[0].parent if found else Path(on_path).parent if on_path else None


@contextmanager
def postgresql() -> Iterator[str]:
    """A database server on a free loopback port, with a password; gives the URL that Prefect takes."""
    binaries = programs()
    assert binaries is not None
    user = "postgres" if os.getuid() == 0 else None  # PostgreSQL does not run as root
    port, password = free_port(), secrets.token_hex(8)
    home = Path(tempfile.mkdtemp(prefix="fedpatch-pg-"))
    (home / "password").write_text(password)
    if user:
        for path in (home, home / "password"):
            shutil.chown(path, user)
    subprocess.run(
        [str(binaries / "initdb"), "-D", str(home / "data"), "-U", "fedpatch", "--auth=scram-sha-256",
         f"--pwfile={home / 'password'}", "-E", "UTF8", "--no-sync"],
        user=user, cwd=home, check=True, capture_output=True,
    )  # fmt: skip
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(
            [str(binaries / "postgres"), "-D", str(home / "data"), "-p", str(port), "-k", str(home),
             "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"],
            user=user, cwd=home, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        subprocess.run([str(binaries / "pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-t", "30"], check=False)
        yield f"postgresql+asyncpg://fedpatch:{password}@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(home, ignore_errors=True)
