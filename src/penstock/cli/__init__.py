"""The command line: one file a command. It parses and prints, and decides nothing."""

import sys
from importlib import import_module

from penstock import __version__

# A command is a function of its own name in the module named here.
COMMANDS = {
    "audit": "penstock.cli.audit",
    "dashboard": "penstock.cli.monitoring",
    "drill": "penstock.cli.drill",
    "plan": "penstock.cli.plan",
    "rules": "penstock.cli.monitoring",
    "run": "penstock.cli.run",
    "runbook": "penstock.cli.runbook",
    "serve": "penstock.cli.serve",
    "top": "penstock.cli.top",
}


def main() -> None:
    """Run `penstock` with the process's arguments; ends the process with the command's exit status."""
    if sys.argv[1:] == ["--version"]:
        print(f"penstock {__version__}")
        return
    try:
        import rich  # noqa: F401
        import typer
    except ImportError:
        print("penstock: the command line needs typer and rich: pip install 'penstock[cli]'", file=sys.stderr)
        sys.exit(2)
    app = typer.Typer(
        help="Keeps a service's database connections below the line.",
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,  # its tracebacks show local variables, DSNs among them
    )
    for name, module in COMMANDS.items():
        app.command(name)(getattr(import_module(module), name))
    try:
        app()
    except OSError as error:  # such as a full disk, for what is printed
        print(f"penstock: {error}", file=sys.stderr)
        sys.exit(2)
