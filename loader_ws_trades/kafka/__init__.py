"""The brokers: everything that uses confluent-kafka."""
