"""`penstock rules` and `penstock dashboard`: what Prometheus and Grafana are to load."""

from penstock.observe import rules as ready_made


def rules() -> None:
    """Print alert rules for Prometheus.

    penstock rules > /etc/prometheus/penstock.rules.yml
    """
    print(ready_made.rules(), end="")


def dashboard() -> None:
    """Print a dashboard for Grafana, to be imported there.

    penstock dashboard > penstock.json
    """
    print(ready_made.dashboard(), end="")
