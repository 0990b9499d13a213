"""Tables that only grow: rows of one protocol, on the disk when they are written."""

import csv
import io
import os
from pathlib import Path
from typing import Any

from protocol import check_digests

from blocks.base import SpecError


class Table:
    """A CSV file, and its rows as text. What a kill cut off is removed."""

    def __init__(self, path: Path, columns: tuple[str, ...], digest: str) -> None:
        self.path, self.columns = path, columns
        self.rows: list[dict[str, str]] = []
        if not path.is_file():
            return
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            with path.open("r+b") as file:
                file.truncate(len(whole))
        reader = csv.DictReader(io.StringIO(whole.decode()))
        if whole and tuple(reader.fieldnames or ()) != columns:
            raise SpecError(f"{path}: its columns must be {', '.join(columns)}")
        self.rows = list(reader)
        check_digests((row["lock"] for row in self.rows), digest, str(path))

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Append rows in one write that has reached the disk when this returns."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.is_file() or not self.path.stat().st_size:
            writer.writeheader()
        writer.writerows(rows)
        with self.path.open("ab") as file:
            file.write(text.getvalue().encode())
            file.flush()
            os.fsync(file.fileno())
        self.rows += [{key: str(value) for key, value in row.items()} for row in rows]

    def matching(self, **values: Any) -> list[dict[str, str]]:
        """Return the rows whose columns have these values."""
        wanted = {key: str(value) for key, value in values.items()}
        return [row for row in self.rows if wanted.items() <= row.items()]
