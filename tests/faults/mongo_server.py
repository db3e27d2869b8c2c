"""The stand-in for MongoDB as a process: `python -m tests.faults.mongo_server PORT PASSWORD_FILE`.

The file is read for each login, so that it can be changed.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

from tests.mongo import Mongo

LIMIT = 20
"""So many connections it takes."""


class Member(Mongo):
    """With a password that may change."""

    def __init__(self, port: int, secret: Path) -> None:
        self._secret = secret
        super().__init__(port=port, limit=LIMIT)

    def _answer(self, command: dict[str, Any]) -> dict[str, Any]:
        self.password = self._secret.read_text(encoding="utf-8")
        return super()._answer(command)


if __name__ == "__main__":
    with Member(int(sys.argv[1]), Path(sys.argv[2])):
        threading.Event().wait()
