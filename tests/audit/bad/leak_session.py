# ruff: noqa: B008
"""Sessions of SQLAlchemy that are not closed, and generators that an exception leaves."""

from contextlib import contextmanager

import psycopg2
from fastapi import Depends, FastAPI
from sqlalchemy import create_engine
from sqlalchemy.orm import Session, sessionmaker

engine = create_engine("postgresql://localhost/app")
SessionLocal = sessionmaker(bind=engine)
app = FastAPI()


def never(user):
    session = SessionLocal()  # expect: PEN105
    session.add(user)
    session.commit()


def where_nothing_raised(key):
    session = Session(engine)  # expect: PEN105
    found = session.get(object, key)
    session.close()
    return found


def rolls_back_alone(user):
    db = SessionLocal()  # expect: PEN105
    try:
        db.add(user)
        db.commit()
        db.refresh(user)
        return user
    except Exception:
        db.rollback()
        raise


def dependency():
    db = SessionLocal()  # expect: PEN105
    yield db
    db.close()


@app.get("/users")
def users(db=Depends(dependency)):
    return db.query(object).all()


@contextmanager
def managed(dsn):
    conn = psycopg2.connect(dsn)  # expect: PEN102
    yield conn
    conn.close()
