"""A PostgreSQL server of a test's own: a new folder, a free port, nothing kept safe on the disk."""

import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

USER, PASSWORD = "archspec", "se cret/100%"


def programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, the newest there is; None without any."""
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


class Postgres:
    """One server below a folder; it asks for a password."""

    def __init__(self, bin_: Path, root: Path) -> None:
        self._bin, self._root, self._data = bin_, root, root / "data"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        secret = root / "password"
        secret.write_text(PASSWORD, encoding="utf-8")
        if os.geteuid() == 0:
            for path in (root, secret):
                shutil.chown(path, "postgres")
        auth = ["-A", "scram-sha-256", "--pwfile", str(secret)]
        self._run("initdb", "-D", str(self._data), "-U", USER, "-N", "-E", "UTF8", *auth)
        settings = {"listen_addresses": "'127.0.0.1'", "port": self.port, "fsync": "off"}
        settings |= {"unix_socket_directories": "''", "max_connections": 40}
        settings |= {"shared_buffers": "16MB", "autovacuum": "off"}
        lines = "\n".join(f"{name} = {value}" for name, value in settings.items())
        (self._data / "postgresql.auto.conf").write_text(lines, encoding="utf-8")
        self.start()

    @property
    def url(self) -> str:
        """Return the address with the password."""
        escaped = PASSWORD.replace("%", "%25").replace("/", "%2F").replace(" ", "%20")
        return f"postgresql://{USER}:{escaped}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it, and return when it answers."""
        self._run("pg_ctl", "-D", str(self._data), "-l", str(self._root / "log"), "-w", "start")

    def stop(self) -> None:
        """Stop it as a crash does."""
        self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop")

    def _run(self, program: str, *words: str) -> None:
        line: Sequence[str] = [str(self._bin / program), *words]
        if os.geteuid() == 0:  # it refuses to run as root
            line = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *line]
        output = self._root / "output"
        with output.open("w", encoding="utf-8") as file:  # a pipe would stay open with the server
            done = subprocess.run(line, stdout=file, stderr=file, cwd="/")
        assert done.returncode == 0, output.read_text(encoding="utf-8")
