"""The pool where people are: SQLAlchemy, Django, the web frameworks. Thin, one file each."""
