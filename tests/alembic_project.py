"""Releases of an app that migrates with Alembic: a folder of revisions each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config

if TYPE_CHECKING:
    from pathlib import Path

_ENV = """
import sqlalchemy as sa
from alembic import context

engine = sa.create_engine(context.config.attributes["url"], poolclass=sa.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection, **context.config.attributes["options"])
    with context.begin_transaction():
        context.run_migrations()
"""


class Release:
    """The migrations of one release, and what migrates by them."""

    def __init__(self, folder: Path, url: str, **options: object) -> None:
        self.folder = folder
        self._url = url
        self._options = options
        """What `env.py` passes to `context.configure`."""
        (folder / "versions").mkdir(parents=True)
        (folder / "env.py").write_text(_ENV)

    def revision(
        self,
        name: str,
        down: str | tuple[str, ...] | None,
        *,
        depends_on: str | None = None,
        label: str | None = None,
        up: str = "",
        folder: Path | None = None,
    ) -> Release:
        """Write a revision whose upgrade executes the SQL statement `up`, if there is one."""
        do = f"op.execute({up!r})" if up else "pass"
        ((folder or self.folder / "versions") / f"{name}.py").write_text(
            "from alembic import op\n"
            f"revision = {name!r}\ndown_revision = {down!r}\ndepends_on = {depends_on!r}\n"
            f"branch_labels = {label!r}\n"
            f"def upgrade():\n    {do}\n"
            "def downgrade():\n    pass\n"
        )
        return self

    def upgrade(self, to: str = "heads") -> None:
        command.upgrade(self.config(), to)

    def downgrade(self, to: str) -> None:
        command.downgrade(self.config(), to)

    def config(self) -> Config:
        config = Config(attributes={"url": self._url, "options": self._options})
        config.set_main_option("script_location", str(self.folder))
        return config
