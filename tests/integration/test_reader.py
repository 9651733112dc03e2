"""The reader in the README, as it stands there: it prints every digit that is on the topic."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from decimal import Decimal

from confluent_kafka import Producer

from loader_ws_trades.pipeline.trade import Trade, record_encoder
from loader_ws_trades.sandbox import EmbeddedBroker
from tests.tools.docs import README
from tests.tools.processes import kill, limited, start

DIGITS = ("20000.50", "0.10000000", "0.00000001", "123456789012345678.123456780", "7")


def test_the_reader_of_the_readme_keeps_every_digit() -> None:
    section = README.read_text("utf-8").partition("### A reader\n")[2].partition("\n### ")[0]
    code = textwrap.dedent("".join(re.findall(r"^(?: {4}.*)?\n", section, re.MULTILINE)))
    assert "Decimal" in code
    encode = record_encoder("BTCUSDT")
    with EmbeddedBroker() as broker:
        producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
        for number, digits in enumerate(DIGITS):
            producer.produce("trades", encode(Trade(number, digits, digits, 1, True, "BTCUSDT")), b"BTCUSDT")
        assert producer.flush(20) == 0
        command = [sys.executable, "-u", "-c", code.replace("kafka:9092", broker.bootstrap_servers)]
        with start(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
            try:
                with limited(process):
                    assert process.stdout
                    lines = [process.stdout.readline().split() for _ in DIGITS]
            finally:
                kill(process)
    for number, (line, digits) in enumerate(zip(lines, DIGITS, strict=True)):
        assert line[:2] == ["BTCUSDT", str(number)]
        assert [Decimal(text).as_tuple() for text in line[2:]] == [Decimal(digits).as_tuple()] * 2
