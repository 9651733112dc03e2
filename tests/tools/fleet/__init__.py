"""Many symbols at once: a loader process a symbol, all from one set of variables, on Apache Kafka.

``python -m tests.tools.fleet`` measures it; `tests/kafka/test_fleet.py` plays a small fleet.
"""
