"""The table of `healthmw watch` on a terminal, drawn by rich."""

from __future__ import annotations

import sys
import time
from collections import deque
from contextlib import nullcontext, redirect_stderr
from typing import TYPE_CHECKING, TextIO, cast

from rich.cells import cell_len
from rich.console import Group
from rich.file_proxy import FileProxy
from rich.live import Live
from rich.table import Table as Grid
from rich.text import Text

from healthmw.cli import _text
from healthmw.cli._output import on_terminal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType
    from typing import Self

    from rich.console import JustifyMethod

    from healthmw.cli._watch import Changes, Row

_STYLES = {"OKAY": "bold green", "DEGRADED": "bold yellow", "UNKNOWN": "bold yellow"}
_BREAKERS = {"closed": "dim", "half_open": "bold yellow"}
_BARS = "▁▂▃▄▅▆▇█"
_KEPT = 16
_WIDE = 96
_TITLES = ("", "status", "age", "took", "last runs", "breaker", "changed")
_GIVE_WAY = ("last runs", "took", "age", "changed", "breaker")
_NAMES = 10
_GAP = 2


class Table:
    """What is watched, a row each. Use as a context manager; it is drawn once a second."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._rows: dict[str, Row] = {}
        self._took: dict[str, deque[float]] = {}
        self._seen = self._drawn = 0.0
        self._has_errors = on_terminal(sys.stderr)
        self._live = Live(auto_refresh=False, redirect_stderr=self._has_errors)
        self._has_bars = self._live.console.encoding.lower().startswith("utf")

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.update(self._picture())  # what stays on the screen may be as high as it is
        self._live.stop()

    def above(self) -> AbstractContextManager[object]:
        """Inside this context whoever takes hold of standard error will write above the table.

        An app's logging does so as it is imported, and would write into the table for ever after.
        """
        if not self._has_errors:
            return nullcontext()
        return redirect_stderr(cast("TextIO", FileProxy(self._live.console, sys.stderr)))

    def show(self, rows: dict[str, Row]) -> None:
        """Show what was seen."""
        self._rows = rows
        self._seen = time.monotonic()
        for name, row in rows.items():
            took = self._took.setdefault(name, deque(maxlen=_KEPT))
            if row.recent:  # the server knows of more runs than we have seen
                took.clear()
                took.extend(row.recent)
            elif row.seconds is not None:
                took.append(row.seconds)
        self._draw()

    def tick(self) -> None:
        """Let time go on: call this often."""
        if time.monotonic() - self._drawn >= 1:
            self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        picture = self._picture()
        over = len(self._live.console.render_lines(picture)) - self._live.console.height
        if over > 0:  # the screen would end above what matters most
            # What is not okay has a line below the table, too. The number of those takes one.
            least = list(reversed(self._rows))
            least.sort(key=lambda name: self._rows[name].word != "OKAY")
            picture = self._picture(without=least[: over + 1])
        self._live.update(picture, refresh=True)

    def _picture(self, without: Sequence[str] = ()) -> Group:
        rows = [self._cells(name, row) for name, row in self._rows.items() if name not in without]
        grid = Grid(box=None, padding=(0, _GAP, 0, 0), header_style="dim")
        titles = self._fitting(rows)
        for title in titles:
            # On a narrow terminal the names are folded: all else is short.
            justify: JustifyMethod = "right" if title in {"age", "took"} else "left"
            grid.add_column(title, no_wrap=title != "", overflow="fold", justify=justify)
        for cells in rows:
            grid.add_row(*(cells[title] for title in titles))
        rest = [_left_out(self._rows[name] for name in without)] if without else []
        return Group(grid, *rest, "", *self._faults())

    def _fitting(self, rows: Sequence[dict[str, Text | str]]) -> list[str]:
        """Return the titles of the columns that have anything and leave the names room."""
        widths = {
            title: max(cell_len(str(text)) for text in (title, *(cells[title] for cells in rows)))
            for title in _TITLES
        }
        widths[""] = min(widths[""], _NAMES)
        titles = list(_TITLES)
        if not any(row.breaker for row in self._rows.values()):
            titles.remove("breaker")
        for title in _GIVE_WAY:
            if sum(widths[one] + _GAP for one in titles) <= self._live.console.width:
                break
            if title in titles:
                titles.remove(title)
        return titles

    def _cells(self, name: str, row: Row) -> dict[str, Text | str]:
        ago = self._changes.ago(name, row)
        age = None if row.age is None else row.age + self._drawn - self._seen
        took = list(self._took[name])[
            -_KEPT if self._live.console.width >= _WIDE else -_KEPT // 2 :
        ]
        bars = _sparkline(took) if self._has_bars else ""
        return {
            "": _label(name, row),
            "status": Text(row.word, style=_style(row)),
            "age": "-" if age is None else _short(age),
            "took": "-" if row.seconds is None else f"{row.seconds * 1000:.0f} ms",
            "last runs": Text(bars, style="dim"),
            "breaker": Text(row.breaker, style=_BREAKERS.get(row.breaker, "bold red")),
            "changed": "-" if ago is None else f"{_short(ago)} ago",
        }

    def _faults(self) -> Iterator[Text]:
        """Say in a line each what is so with all that is not well: it has the whole width."""
        for name, row in self._rows.items():
            if row.word != "OKAY" and row.about:
                fault = Text(overflow="fold")
                fault.append(f"{row.word:<9}", _style(row)).append(f"{name}: {row.about}")
                yield fault


def _label(name: str, row: Row) -> Text:
    if row.label != name:
        return Text(f"  {row.label}")
    label = Text(name)
    return label.append(f" {row.release}", style="dim") if row.release else label


def _left_out(rows: Iterable[Row]) -> Text:
    okay = [row.word == "OKAY" for row in rows]
    bad = okay.count(False)
    also = f" and {bad} that are not" if bad else ""
    return Text(f"... and {okay.count(True)} that are okay{also}", style="dim")


def _style(row: Row) -> str:
    return _STYLES.get(row.word, "bold red")


def _short(seconds: float) -> str:
    """Write how long ago something was, to its greatest unit."""
    if seconds < 60:
        return _text.seconds(seconds)
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} d"


def _sparkline(values: Sequence[float]) -> str:
    """Return a bar for each value, as high as its share of the highest."""
    top = max(values, default=0.0) or 1.0
    return "".join(_BARS[round(value / top * (len(_BARS) - 1))] for value in values)
