"""The connection limits of SQL servers, and what counts towards them now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from healthmw.probes._headroom_forecast import Limit

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

# Who may not read statistics sees of other roles' sessions the role and the database, but not of
# which type: only those of no role (autovacuum) or database (physical replication) can be left out.
_POSTGRESQL = """
WITH me AS (
  SELECT r.oid, r.rolname, r.rolsuper, r.rolconnlimit, d.oid AS datid, d.datname, d.datconnlimit,
         EXISTS (SELECT FROM pg_roles g WHERE g.rolname = 'pg_use_reserved_connections'
                 AND pg_has_role(session_user, g.oid, 'USAGE')) AS may_use_reserved
  FROM pg_roles r, pg_database d
  WHERE r.rolname = session_user AND d.datname = current_database()
)
SELECT me.rolname, me.rolsuper, me.rolconnlimit, me.datname, me.datconnlimit, me.may_use_reserved,
       CAST(current_setting('max_connections') AS integer) AS max_connections,
       CAST(current_setting('superuser_reserved_connections') AS integer) AS for_superusers,
       CAST(coalesce(current_setting('reserved_connections', true), '0') AS integer) AS reserved,
       count(*) AS on_server,
       count(*) FILTER (WHERE a.usesysid = me.oid) AS of_role,
       count(*) FILTER (WHERE a.datid = me.datid) AS in_database,
       count(*) FILTER (
         WHERE a.usesysid = me.oid AND a.datid = me.datid
         AND CASE WHEN CAST(:pattern AS text) IS NULL
             THEN a.application_name = current_setting('application_name')
             ELSE a.application_name LIKE CAST(:pattern AS text) END
       ) AS ours
FROM me, pg_stat_activity a
WHERE a.usesysid IS NOT NULL AND a.datid IS NOT NULL
AND coalesce(a.backend_type, 'client backend') = 'client backend'
GROUP BY 1, 2, 3, 4, 5, 6
"""

# Who may not see other accounts' sessions sees all of its own, which is what is asked here.
_MYSQL = """
SELECT @@global.max_connections AS max_connections,
       @@session.max_user_connections AS max_user_connections,
       substring_index(user(), '@', 1) AS account,
       count(*) AS of_account,
       coalesce(sum(p.db <=> database()), 0) AS ours
FROM information_schema.processlist p
WHERE p.user = substring_index(user(), '@', 1)
"""


def postgresql(connection: Connection, application_name: str | None) -> list[Limit]:
    """Return the limits of the server, the role and the database, where they have one.

    The app's own are the sessions of this role in this database with this application_name, or with
    one that is like the pattern given.
    """
    import sqlalchemy as sa

    found = connection.execute(sa.text(_POSTGRESQL), {"pattern": application_name}).one()
    kept = 0 if found.rolsuper else found.for_superusers
    if not (found.rolsuper or found.may_use_reserved):
        kept += found.reserved
    name = "max_connections"
    limits = [
        Limit(
            scope="server",
            name=f"{name} ({found.max_connections}, of which {kept} reserved)" if kept else name,
            allows=found.max_connections - kept,
            in_use=found.on_server,
            ours=found.ours,
            way_out=f"raise {name}",
        )
    ]
    for scope, who, allows, in_use in (
        ("role", found.rolname, found.rolconnlimit, found.of_role),
        ("database", found.datname, found.datconnlimit, found.in_database),
    ):
        if allows >= 0 and not found.rolsuper:  # no such limit holds for a superuser
            limits.append(
                Limit(
                    scope=scope,
                    name=f"the CONNECTION LIMIT of the {scope} {who}",
                    allows=allows,
                    in_use=in_use,
                    ours=found.ours,
                    way_out=f"raise it by ALTER {scope.upper()}",
                )
            )
    return limits


def mysql(connection: Connection) -> list[Limit]:
    """Return the limits of the server and of the account, where it has one.

    The app's own are the sessions of this user in this database.
    """
    import sqlalchemy as sa

    found = connection.execute(sa.text(_MYSQL)).one()
    status = connection.execute(sa.text("SHOW GLOBAL STATUS LIKE 'Threads_connected'")).one()
    ours = int(found.ours)
    limits = [
        Limit(
            scope="server",
            name="max_connections",
            allows=int(found.max_connections),
            in_use=int(status[1]),
            ours=ours,
            way_out="raise max_connections",
        )
    ]
    if found.max_user_connections > 0:
        limits.append(
            Limit(
                scope="account",
                name=f"max_user_connections of {found.account}",
                allows=int(found.max_user_connections),
                in_use=int(found.of_account),
                ours=ours,
                way_out="raise max_user_connections",
            )
        )
    return limits


def reader(dialect: str, application_name: str | None) -> Callable[[Connection], list[Limit]]:
    """Return what reads the limits of a server of this kind; raises `ValueError` for others."""
    if dialect == "postgresql":
        return lambda connection: postgresql(connection, application_name)
    if application_name is not None:
        raise ValueError("application_name= is for PostgreSQL only")
    if dialect in {"mysql", "mariadb"}:
        return mysql
    raise ValueError(f"target must be of PostgreSQL, MySQL, MariaDB or Redis, not {dialect}")
