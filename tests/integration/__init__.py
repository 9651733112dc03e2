"""Tests with real sockets: the simulated exchange, and the embedded broker."""
