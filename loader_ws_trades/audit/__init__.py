"""Reads a topic and judges it."""
