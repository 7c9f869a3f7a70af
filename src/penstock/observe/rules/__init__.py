"""Ready-made for those who watch from outside: alert rules for Prometheus, and a dashboard for Grafana.

Both know the figures by the names that `penstock.observe.prometheus` gives them.
"""

from importlib.resources import files


def rules() -> str:
    """Prometheus's alert rules, as YAML."""
    return files(__name__).joinpath("penstock.rules.yml").read_text()


def dashboard() -> str:
    """Grafana's dashboard, as JSON."""
    return files(__name__).joinpath("dashboard.json").read_text()
