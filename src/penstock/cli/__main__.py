"""`python -m penstock.cli`: the command where no script is on the path."""

from penstock.cli import main

main()
