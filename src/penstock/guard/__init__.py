"""An unmodified program's connections, wrapped as its drivers are imported: `penstock run`.

`launch` starts the program; `bootstrap/sitecustomize.py` is what its interpreter, and every child's, runs first;
`imported` is told of each driver as it is imported. From there on it is `watching`'s, or `holding`'s. `frameworks` is
told of web frameworks, and `requests` is what it knows by them: whose request runs, and when it ends.
"""
