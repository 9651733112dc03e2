"""Tries every setting against the real services."""
