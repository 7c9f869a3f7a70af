"""Penstock's claims, each measured against its peers in one run on one machine. `python -m bench` runs them."""
