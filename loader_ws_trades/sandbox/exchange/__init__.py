"""The simulated exchange: connections, streams and REST."""
