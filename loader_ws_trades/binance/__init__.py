"""The exchange: its stream, its REST API and its archives."""
