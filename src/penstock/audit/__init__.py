"""A static audit of Python code for what makes a service run out of database connections: `penstock audit`.

It reads and never runs. `names` and `project` say what a name stands for, `catalog` what the libraries' calls make and
what ends that, `flow` follows it through branches, exceptions and `with`; each family of `rules` says what is wrong
about that. Where it is unsure it is silent.
"""
