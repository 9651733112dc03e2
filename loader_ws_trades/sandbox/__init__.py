"""A simulated exchange and an embedded broker, for `demo`, `sandbox` and the tests."""
