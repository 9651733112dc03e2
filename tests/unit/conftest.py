"""Fixtures of the unit tests."""

from __future__ import annotations

from tests.unit.clock import clock

__all__ = ["clock"]
