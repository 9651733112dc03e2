"""Loads every trade of one Binance pair from its WebSocket stream into a Kafka topic."""

__version__ = "1.0.0"
