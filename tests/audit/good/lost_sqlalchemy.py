"""Writes by way of SQLAlchemy that somebody commits, or may."""

from sqlalchemy import create_engine, text
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

engine = create_engine("postgresql://localhost/app")
Sessions = sessionmaker(engine)


class Base(DeclarativeBase):
    pass


def in_sql():
    with engine.connect() as conn:
        conn.execute(text("UPDATE t SET a = 1"))
        conn.commit()


def in_a_block():
    with engine.begin() as conn:
        conn.execute(text("UPDATE t SET a = 1"))


def in_an_inner_block():
    with engine.connect() as conn, conn.begin():
        conn.execute(text("UPDATE t SET a = 1"))


def added(user):
    with Session(engine) as session:
        session.add(user)
        session.commit()


def in_a_block_of_the_factory(user):
    with Sessions.begin() as session:
        session.add(user)


def another_commits(user, save):
    with Session(engine) as session:
        session.add(user)
        save(session)


def reads():
    with engine.connect() as conn:
        return conn.execute(text("SELECT 1")).scalar()
