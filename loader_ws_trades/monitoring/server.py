"""The HTTP server of `/metrics`, for Prometheus, and `/healthz`, for a liveness probe."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder

from loader_ws_trades import __version__
from loader_ws_trades.config.settings import Settings, named
from loader_ws_trades.errors import ConfigurationError, UnavailableError
from loader_ws_trades.lifecycle import Deadline, Task, spawn
from loader_ws_trades.logs import Events
from loader_ws_trades.monitoring.metrics import BOUNDS, INFO, LATENCY, METRICS, Latencies, Metric, Value
from loader_ws_trades.monitoring.status import RunStatus

log = logging.getLogger(__name__)
events = Events(log)

_POLL = 1.0  # seconds within which the server notices that a request takes too long
_REQUEST = 5.0  # seconds that a request may take in total
_AT_ONCE = 16  # open requests; one more replaces the oldest
_TEXT = "text/plain; charset=utf-8"
_NO_IPV6 = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


class MetricsServer:
    """Serves `METRICS_PORT` on all addresses, from `start` to `close`.

    Args:
        settings: the port, and the labels of `info`.
        status: reads how the run is doing.
        latencies: the histogram.
        trouble: says what is stuck, if anything is.

    Raises:
        ConfigurationError: if the port cannot be used.
        UnavailableError: if it is in use.
    """

    def __init__(
        self,
        settings: Settings,
        status: Callable[[], RunStatus],
        latencies: Latencies | None,
        trouble: Callable[[], str | None],
    ) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(settings, status, latencies))
        ProcessCollector(registry=registry)

        def metrics(accept: str) -> _Answer:
            encode, content_type = choose_encoder(accept)
            return HTTPStatus.OK, content_type, encode(registry)

        def health(_accept: str) -> _Answer:
            found = trouble()
            status = HTTPStatus.SERVICE_UNAVAILABLE if found else HTTPStatus.OK
            return status, _TEXT, f"{found or 'ok'}\n".encode()

        self._server = _listen(settings.metrics_port or 0, {"/metrics": metrics, "/healthz": health})
        self._task: Task | None = None

    def start(self) -> None:
        """Start answering."""
        self._task = spawn("metrics", lambda: self._server.serve_forever(_POLL), self._on_death)

    @staticmethod
    def _on_death(error: BaseException) -> None:
        events.warn("metrics_failed", f"Metrics and probes are no longer served: {error}")

    def close(self) -> None:
        """Stop the server and wait for its thread."""
        if self._task:
            # So that `shutdown` need not wait for the next poll.
            with contextlib.suppress(OSError):
                self._server.socket.shutdown(socket.SHUT_RDWR)
            self._server.shutdown()
            self._task.join(_REQUEST)
        self._server.server_close()


_Answer = tuple[HTTPStatus, str, bytes]  # with the content type and the body
_Answers = Mapping[str, Callable[[str], _Answer]]  # by path; each is given the Accept header


class _Handler(BaseHTTPRequestHandler):
    timeout = _REQUEST
    server: _Server

    def do_GET(self) -> None:
        """Answer one request."""
        answers = self.server.answers
        answer = answers.get(self.path.partition("?")[0])
        status, content_type, body = (
            answer(self.headers.get("Accept", ""))
            if answer
            else (HTTPStatus.NOT_FOUND, _TEXT, f"Try {' or '.join(answers)}\n".encode())
        )
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        """Do not reveal the version of Python."""
        return "loader-ws-trades"

    def log_message(self, format: str, *parts: Any) -> None:  # noqa: A002 - the library's name
        """Log through our own log, not directly to standard error."""
        log.debug(format, *parts)


class _Server(ThreadingHTTPServer):
    """Bounds the time and the number of requests, so that no client can keep a probe from its answer."""

    request_queue_size = 2 * _AT_ONCE

    def __init__(self, family: socket.AddressFamily, host: str, port: int, answers: _Answers) -> None:
        self.address_family = family
        self.answers = answers
        self._lock = threading.Lock()
        self._deadlines: dict[socket.socket, Deadline] = {}  # of open requests, the oldest first
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Bind, to IPv4 as well; without the DNS lookup of our own name that the library makes."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a new thread; if too many are open, cut off the oldest: it is idle, as a probe would have ended."""
        with self._lock:
            if len(self._deadlines) >= 2 * _AT_ONCE:  # threads of requests cut off end soon, but not at once
                raise ConnectionRefusedError("too many requests")  # the library closes it
            for oldest in [*self._deadlines][: max(0, len(self._deadlines) + 1 - _AT_ONCE)]:
                self._cut_off(oldest)
            self._deadlines[request] = Deadline(_REQUEST)
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Cut off requests that take too long; a socket timeout would not catch one that trickles."""
        with self._lock:
            for request, deadline in self._deadlines.items():
                if deadline.passed:
                    self._cut_off(request)

    @staticmethod
    def _cut_off(request: socket.socket) -> None:
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)  # which ends its thread

    def shutdown_request(self, request: Any) -> None:
        """Close a request, whether it was answered, cut off, or no thread could be started for it."""
        with self._lock:
            self._deadlines.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the library's
        """Log through our own log, not directly to standard error."""
        log.debug("A request for metrics failed", exc_info=True)


def _listen(port: int, answers: _Answers) -> _Server:
    try:
        if socket.has_dualstack_ipv6():
            try:
                return _Server(socket.AF_INET6, "::", port, answers)
            except OSError as error:
                if error.errno not in _NO_IPV6:
                    raise
        return _Server(socket.AF_INET, "0.0.0.0", port, answers)
    except OSError as error:
        # A loader that is about to end may still have it.
        kind = UnavailableError if error.errno == errno.EADDRINUSE else ConfigurationError
        raise kind(
            f"Cannot serve metrics on port {port} ({error.strerror}); set {named('metrics_port')} to a free one"
        ) from error


class _Collector:
    """Reads the metrics of a run when they are scraped."""

    def __init__(self, settings: Settings, status: Callable[[], RunStatus], latencies: Latencies | None) -> None:
        symbols = settings.symbol or ",".join(settings.symbols or ())
        identity = (settings.queue_id, symbols, settings.type, settings.client_id)
        self._info = GaugeMetricFamily(INFO.name, INFO.meaning, labels=INFO.labels)
        self._info.add_metric((__version__, *(value or "" for value in identity)), 1)
        self._status = status
        self._latencies = latencies

    def collect(self) -> Iterator[Family]:
        """All of them, now."""
        status = self._status()
        for metric in METRICS:
            if metric.read:
                yield _family(metric, metric.read(status))
        if self._latencies:
            yield _histogram(self._latencies)
        yield self._info


def _histogram(latencies: Latencies) -> Family:
    totals = map(float, accumulate(latencies.counts))
    buckets = list(zip([*map(str, BOUNDS), "+Inf"], totals, strict=True))
    return HistogramMetricFamily(LATENCY.name, LATENCY.meaning, buckets=buckets, sum_value=latencies.sum)


def _family(metric: Metric, value: Value) -> Family:
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.meaning, labels=metric.labels)
    if isinstance(value, Mapping):
        for label, number in value.items():
            family.add_metric((label,), number)
    elif value is not None:
        family.add_metric((), value)
    return family
