"""The trades of a symbol, and when they are issued."""
