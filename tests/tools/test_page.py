"""The report of an audit in a real browser: light and dark, wide and narrow, nothing cut off, no words over others."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_audit import START, Topic, value_of
from tests.unit.test_timeline import MINUTE, report, timed

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")

DARK, LIGHT = 0, 1
# A window is never as narrow as a telephone, but a frame in it is.
FRAME = """<!doctype html><iframe width="%d" height="1600" style="border: 0" srcdoc="%s"></iframe><script>
onload = () => {
  const page = document.querySelector("iframe").contentDocument, view = page.defaultView;
  const all = names => [...page.querySelectorAll(names)];
  const boxes = all("h1, h2, .tile b, .tile span, svg text, td, th")
    .map(e => [e.textContent, e.getBoundingClientRect(), e.closest("svg, .tile, table, header, figure, section")])
    .filter(([words, box]) => words && box.width);
  const over = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  document.documentElement.dataset.found = JSON.stringify({
    width: page.documentElement.scrollWidth,
    ground: view.getComputedStyle(page.body).backgroundColor,
    charts: all("svg").filter(e => e.getBoundingClientRect().width).length,
    bars: all(".bar").filter(e => e.getBoundingClientRect().height > 0).length,
    outside: boxes.filter(([, box]) => box.left < 0 || box.right > view.innerWidth).map(([words]) => words),
    over: boxes.flatMap(([words, box, parent], i) => boxes.slice(i + 1)
      .filter(([, other, its]) => parent === its && over(box, other)).map(([other]) => [words, other])),
  });
};
</script>"""


def topic_of_a_day() -> Topic:
    """A trade every 20 s with gaps, duplicates and a fault in the format, appended with a lag."""
    topic = Topic()
    numbers = [number for number in range(4320) if not 1000 <= number < 1200]
    for number in [*numbers[:3000], *numbers[2900:], *range(1000, 1100)]:
        moment = START + number * MINUTE // 3
        topic.put_raw(value_of(1_000_000_000 + number, moment), -(moment + 50 + number % 700))
    topic.put_raw(b"x" * 300, START)
    return topic


def measured(folder: Path, page: str, width: int, scheme: int) -> dict[str, Any]:
    assert CHROMIUM
    path = folder / "frame.html"
    path.write_text(FRAME % (width, escape(page)), "utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += [
        "--hide-scrollbars",
        "--window-size=1600,1700",
        f"--blink-settings=preferredColorScheme={scheme}",
        "--dump-dom",
    ]
    dom = subprocess.run([*command, path.as_uri()], check=True, capture_output=True, text=True, timeout=120).stdout
    found = re.search(r'data-found="([^"]*)"', dom)
    assert found
    return dict(json.loads(unescape(found[1])))


@pytest.mark.parametrize("width", [1280, 400])
def test_the_report_fits_and_follows_the_colour_scheme(tmp_path: Path, width: int) -> None:
    page = report(timed(topic_of_a_day()))
    grounds = set()
    for scheme in (DARK, LIGHT):
        found = measured(tmp_path, page, width, scheme)
        assert found["width"] == width, "the page does not scroll sideways"
        assert found["outside"] == []
        assert found["over"] == []
        assert found["charts"] == 3
        assert found["bars"] > 50
        grounds.add(found["ground"])
    assert len(grounds) == 2
