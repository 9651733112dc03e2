"""What an exchange has done, in numbers."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Counters:
    """What the exchange has done since it was made; counted before it is done, so that who sees it finds it here."""

    connections: int = 0
    """WebSocket handshakes accepted."""
    refused: int = 0
    """WebSocket handshakes refused."""
    frames: int = 0
    """Trade frames sent."""
    pings: int = 0
    cut_off: int = 0
    """Clients cut off because they were too slow to read."""
    weight: int = 0
    """Request weight used, over all windows and IPs."""
    requests: Counter[str] = field(default_factory=Counter)
    """REST requests, by path."""
