"""How Alembic finds the database: where the app does."""

from alembic import context
from app import Base, database_url, settings
from sqlalchemy import create_engine

engine = create_engine(database_url(settings()["DATABASE_URL"]))
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
