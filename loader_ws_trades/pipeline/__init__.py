"""Frames in, trades in order out; what is missing is held back, fetched or named."""
