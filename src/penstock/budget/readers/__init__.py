"""What an application really sets, read from its files. Nothing of the application is ever imported or run.

One file a kind, each a function from text to facts: `sqlalchemy`, `pools`, `django` say what one process may open
(`Opens`); `gunicorn`, `command`, `compose`, `kubernetes`, `dockerfile` say how many processes there are (`Runs`).
"""
