"""Many symbols at once: a loader process a symbol, all from one set of variables, on Apache Kafka.

``python -m tests.fleet`` measures it; `tests/test_fleet.py` plays a small fleet.
"""
