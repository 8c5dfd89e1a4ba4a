"""Trials: the whole system under faults and overload, measured. `python -m bench.trials` runs them."""
