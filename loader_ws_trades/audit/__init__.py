"""Reads a topic and reports missing, duplicate, out-of-order and malformed trades."""
