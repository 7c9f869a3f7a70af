"""Sessions that are closed, or are somebody else's."""

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

engine = create_engine("postgresql://localhost/app")
SessionLocal = sessionmaker(bind=engine)
registry = scoped_session(SessionLocal)


def dependency():
    db = SessionLocal()
    try:
        yield db
    finally:
        db.close()


def in_with(user):
    with SessionLocal() as session:
        session.add(user)
        session.commit()


def in_begin(user):
    with SessionLocal.begin() as session:
        session.add(user)


def of_its_own(key):
    with Session(engine) as session:
        return session.get(object, key)


def in_finally(user):
    session = SessionLocal()
    try:
        session.add(user)
        session.commit()
    except Exception:
        session.rollback()
        raise
    finally:
        session.close()


def of_the_registry(user):
    registry.add(user)
    registry.commit()


@pytest.fixture
def session():
    made = SessionLocal()
    yield made
    made.rollback()
    made.close()


class Service:
    def __init__(self, session: Session):
        self.session = session

    def find(self, key):
        return self.session.get(object, key)
