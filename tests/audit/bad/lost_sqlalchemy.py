"""Writes by way of SQLAlchemy that nobody commits."""

from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

engine = create_engine("postgresql://localhost/app")
aengine = create_async_engine("postgresql+asyncpg://localhost/app")
Sessions = sessionmaker(engine)


class Base(DeclarativeBase):
    pass


def in_sql():
    with engine.connect() as conn:
        conn.execute(text("UPDATE t SET a = 1"))  # expect: PEN511


async def in_sql_of_asyncio():
    async with aengine.connect() as conn:
        await conn.execute(text("DELETE FROM t"))  # expect: PEN511


def added(user):
    with Session(engine) as session:
        session.add(user)  # expect: PEN511


def by_a_factory(users):
    session = Sessions()
    try:
        session.add_all(users)  # expect: PEN511
    finally:
        session.close()
