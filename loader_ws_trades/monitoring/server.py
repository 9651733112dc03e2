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
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder

from loader_ws_trades.config.settings import named
from loader_ws_trades.errors import ConfigurationError, UnavailableError
from loader_ws_trades.lifecycle import Deadline, Task, spawn
from loader_ws_trades.monitoring.latency import BOUNDS, Latencies
from loader_ws_trades.monitoring.metrics import METRICS, Metric, Value
from loader_ws_trades.monitoring.vitals import Vitals

log = logging.getLogger(__name__)

_POLL = 0.1  # seconds in which the server notices its end
_REQUEST = 5.0  # seconds that a request may take as a whole
_AT_ONCE = 16  # requests; one more takes the place of the oldest
_TEXT = "text/plain; charset=utf-8"
_NO_IPV6 = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


class Exposition:
    """Answers HTTP at `port`, on all addresses, from `start` to `close`.

    Raises:
        ConfigurationError: if the port cannot be had.
        UnavailableError: if somebody else has it.
    """

    def __init__(self, port: int, vitals: Vitals) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(vitals))
        ProcessCollector(registry=registry)

        def metrics(accepted: str) -> _Answer:
            encode, content_type = choose_encoder(accepted)
            return _Answer(HTTPStatus.OK, content_type, encode(registry))

        def health(_accepted: str) -> _Answer:
            trouble = vitals.trouble()
            status = HTTPStatus.SERVICE_UNAVAILABLE if trouble else HTTPStatus.OK
            return _Answer(status, _TEXT, f"{trouble or 'ok'}\n".encode())

        self._server = _listen(port, {"/metrics": metrics, "/healthz": health})
        self._task: Task | None = None

    def start(self) -> None:
        """Begin to answer."""
        self._task = spawn("metrics", lambda: self._server.serve_forever(_POLL), self._on_death)

    @staticmethod
    def _on_death(error: BaseException) -> None:
        log.warning("Metrics and probes are not served any more: %s", error, extra={"event": "metrics_failed"})

    def close(self) -> None:
        """End the server, and wait for its thread."""
        if self._task:
            self._server.shutdown()
            self._task.join(_REQUEST)
        self._server.server_close()


class _Answer(NamedTuple):
    status: HTTPStatus
    content_type: str
    body: bytes


_Answers = Mapping[str, Callable[[str], _Answer]]  # by path; each is given what the client accepts


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
            else _Answer(HTTPStatus.NOT_FOUND, _TEXT, f"Here are {' and '.join(answers)}\n".encode())
        )
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        """Not which Python this is."""
        return "loader-ws-trades"

    def log_message(self, format: str, *parts: Any) -> None:  # noqa: A002 - the library's name
        """Not to standard error, past the log."""
        log.debug(format, *parts)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 2 * _AT_ONCE

    def __init__(self, family: socket.AddressFamily, host: str, port: int, answers: _Answers) -> None:
        self.address_family = family
        self.answers = answers
        self._lock = threading.Lock()
        self._ends: dict[socket.socket, Deadline] = {}  # of the requests that are being answered
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Take the port, for IPv4 too; without the library's question to DNS who we are."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own. If there are too many, the oldest is cut off: it says nothing, a probe does.

        A probe is answered long before as many others as have a place come after it.
        """
        with self._lock:
            going_on = [other for other, end in self._ends.items() if not end.passed]
            if len(going_on) >= _AT_ONCE:
                self._cut_off(going_on[0])
            free = len(self._ends) < 2 * _AT_ONCE  # those that were cut off end soon, but not at once
            if free:
                self._ends[request] = Deadline(_REQUEST)
        if free:
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def service_actions(self) -> None:
        """Cut off whose time is over: a client that says a little now and then would hold its place for ever."""
        with self._lock:
            for request, end in self._ends.items():
                if end.passed:
                    self._cut_off(request)

    def _cut_off(self, request: socket.socket) -> None:
        self._ends[request].shorten(0.0)
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)  # its thread ends of it

    def shutdown_request(self, request: Any) -> None:
        """Let go of a request, whether it was answered, cut off, or no thread could be had for it."""
        with self._lock:
            self._ends.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the library's
        """Not to standard error, past the log: clients come and go."""
        log.debug("A request for metrics was not answered", exc_info=True)


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
            f"Metrics cannot be served at the port {port} ({error.strerror}); give {named('metrics_port')} a free one"
        ) from error


class _Collector:
    """Reads the metrics of a run when somebody asks for them."""

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals

    def collect(self) -> Iterator[Family]:
        """All of them, now."""
        return (_family(metric, metric.read(self._vitals)) for metric in METRICS)


def _family(metric: Metric, value: Value) -> Family:
    if isinstance(value, Latencies):
        totals = list(accumulate(value.counts))
        names = [*(str(bound) for bound in BOUNDS), "+Inf"]
        buckets = list(zip(names, map(float, totals), strict=True))
        return HistogramMetricFamily(metric.name, metric.meaning, buckets=buckets, sum_value=value.sum)
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.meaning, labels=metric.labels)
    if isinstance(value, Mapping):
        for labels, number in value.items():
            family.add_metric((labels,) if isinstance(labels, str) else labels, number)
    elif value is not None:
        family.add_metric((), value)
    return family
