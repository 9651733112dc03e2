"""Tests that need neither a broker nor a socket; whatever waits does so on a clock that the test moves."""
