"""Penstock beneath what people build on: SQLAlchemy, Django, the web frameworks."""
