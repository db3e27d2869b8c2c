"""The shop's worker: writes customers in the format of its release, for which web must be ready."""

from __future__ import annotations

import os

import sqlalchemy as sa


def main() -> None:
    engine = sa.create_engine(
        os.environ["DATABASE_URL"], connect_args={"application_name": "worker"}
    )
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE customers SET format = '2'"))
    engine.dispose()


if __name__ == "__main__":
    main()
