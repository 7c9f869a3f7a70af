"""The hall of shame: what each pool does where pools go wrong. `python -m bench.shame` prints it as one table."""
