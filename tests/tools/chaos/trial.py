"""One line of the table: an exchange, a workflow's topics, its loaders, and what came of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from types import TracebackType

from confluent_kafka import Message

from loader_ws_trades.sandbox import Exchange, Fault, Limits, Market
from tests.tools.chaos.outcome import Counts, Outcome, total
from tests.tools.chaos.timing import first_sign, recovery
from tests.tools.chaos.witness import compare, named_ids
from tests.tools.loader import Loader, Workflow, check_events, workflow_on
from tests.tools.topics import Follower, read_topic, write_topic
from tests.tools.usage import PeakMemory
from tests.tools.waiting import wait_for


class Trial:
    """Entered, the exchange serves and the topics are there; left, the loaders are ended and the topic is judged.

    The judgement is in `outcome`, together with the `AssertionError` that its block ended with.

    Args:
        name: number of the matrix's row, and what goes wrong.
        bootstrap_servers: the brokers, for the loaders and for the independent reader.
        create_topic: makes a topic.
        markets: what is traded; each begins with its first subscriber, so that all it issues is owed.
        topic_each: whether each market has a topic of its own.
        faults: what goes wrong at the exchange by itself.
        limits: what the exchange allows.
        ping_interval: seconds between the exchange's pings.
    """

    def __init__(
        self,
        name: str,
        bootstrap_servers: str,
        create_topic: Callable[[str], object],
        *markets: Market,
        topic_each: bool = False,
        faults: Iterable[Fault] = (),
        limits: Limits | None = None,
        ping_interval: float = 20.0,
    ) -> None:
        number, _, fault = name.partition(" ")
        self.outcome = Outcome(int(number), fault)
        self.markets = list(markets)
        """Those whose trades are owed."""
        self.market = markets[0]
        self.exchange = Exchange(
            markets, faults=faults, limits=limits or Limits(connection_age=None), ping_interval=ping_interval
        )
        self.loaders: list[Loader] = []
        self.excused: set[int] = set()
        """Ids that the loader could not get, and must name."""
        self.behind = 0.0
        """Seconds by which the loader's clock is behind."""
        self.expected: set[str] = set()
        """Columns that need not be 0 in this trial."""
        self.struck_at: float | None = None
        self.healed_at: float | None = None
        self.workflow: Workflow
        self._foreign: set[bytes | None] = set()
        self._open_workflow = partial(workflow_on, bootstrap_servers, create_topic)
        self._create_topic = create_topic
        self._topic_each = topic_each
        self._topics: list[str] = []
        self._goals: dict[str, int] = {}
        self._limits: dict[str, float | None] = {}
        self._log: str | None = None  # once the loaders have ended
        self._quiet_until: float | None = None
        self._memory: PeakMemory
        self._follower: Follower
        self._stack = ExitStack()

    def __enter__(self) -> Trial:
        with ExitStack() as stack:
            self.workflow = stack.enter_context(self._open_workflow())
            stack.enter_context(self.exchange)
            self._topics = [self.workflow.topic]
            if self._topic_each:
                self._topics = [f"{self.workflow.topic}.{market.symbol}" for market in self.markets]
                for topic in self._topics:
                    self._create_topic(topic)
                self.workflow.variables["KAFKA_TOPIC"] = f"{self.workflow.topic}.{{symbol}}"
            if len(self.markets) > 1:
                self.workflow.variables |= {"SYMBOL": None, "SYMBOLS": ",".join(one.symbol for one in self.markets)}
            self._follower = Follower(self.workflow.servers, self._topics, self._foreign)
            stack.callback(self._follower.close)
            self._memory = PeakMemory()
            stack.callback(self._memory.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for loader in self.loaders:
                if loader.process.poll() is None:
                    loader.process.kill()
                    loader.process.wait()
            self._log = self.outcome.log = self.log
            if error is not None:
                self.outcome.broken.append(f"{'' if isinstance(error, AssertionError) else f'{kind}: '}{error}")
            if kind is None or issubclass(kind, AssertionError):
                self._judge()
        finally:
            self._stack.close()

    # -- what a scenario does

    def start(self, *flags: str, **variables: object) -> Loader:
        """Start a loader."""
        urls: dict[str, object] = {"BINANCE_WS_URL": self.exchange.ws_url, "BINANCE_REST_URL": self.exchange.rest_url}
        loader = self.workflow.run(*flags, **(urls | variables))
        self.loaders.append(loader)
        self._memory.watch(loader.process.pid)
        self._quiet_until = None
        return loader

    def write(self, *values: bytes | None) -> None:
        """Write records that are not the loader's to the topic, with the loader's key."""
        self._foreign.update(values)
        write_topic(self.workflow.servers, self.workflow.topic, *values, key=self.market.symbol.encode())

    def let_issue(self, count: int, seconds: float = 60) -> None:
        """Wait until the exchange has issued `count` trades in all."""
        wait_for(lambda: self.market.issued >= count, f"{count} trades issued", seconds)

    def let_pass(self, seconds: float) -> None:
        """Let a fault last, or load go on, for a time."""
        end = time.monotonic() + seconds
        wait_for(lambda: time.monotonic() >= end, "the clock", seconds + 5)

    def let_load(self, more: int = 500, seconds: float = 90) -> None:
        """Wait until the topic has what the exchange has issued by now, and `more` trades of the first pair after that.

        Raises:
            AssertionError: if that takes too long, or no loader runs any more.
        """
        issued = {market.symbol: market.last_id for market in self.markets}
        self._goals = {symbol: last for symbol, last in issued.items() if last is not None}
        self._goals[self.market.symbol] = self._goals.get(self.market.symbol, self.market.first_id - 1) + more
        goals = set(self._goals.values())

        def done() -> bool:
            return goals <= self._follower.arrivals.keys() or not self._running()

        wait_for(done, f"trades {', '.join(map(str, sorted(goals)[:5]))} on the topic", seconds)
        assert goals <= self._follower.arrivals.keys(), f"no loader runs any more: {self.last_words()}"

    def stop(self) -> None:
        """Stop the loaders by command; each must end with 0."""
        self.ends()
        self.workflow.stop()
        for loader in self.loaders:
            if loader.process.returncode is None:
                assert loader.wait() == 0, f"exit code {loader.process.returncode}: {self.last_words()}"

    @contextmanager
    def promise(self) -> Iterator[None]:
        """Where several trials run together: what breaks in this block counts for it, and the others continue."""
        try:
            yield
        except AssertionError as error:
            self.outcome.broken.append(str(error))

    def ends(self) -> None:
        """Note that the loader is to end now: what it logs from here on is not a sign of the fault."""
        self._quiet_until = time.time()

    def let_strike(self, count: int, seconds: float = 60) -> None:
        """Wait until that many of the exchange's faults have struck."""
        wait_for(lambda: len(self.exchange.struck) >= count, f"{count} faults", seconds)

    def limits_on_times(self, *, seen: float | None = None, recovered: float | None = None) -> None:
        """Promise that the fault is seen, and that the topic is complete again, within so many seconds."""
        self._limits = {"detect": seen, "recover": recovered}

    def check_events(self) -> None:
        """Check the telemetry of a loader that was stopped by command."""
        check_events(self.workflow.events(), self.workflow, "interrupted")

    @contextmanager
    def fault(self) -> Iterator[None]:
        """The time that a fault lasts, for the table."""
        self.struck_now()
        yield
        self.healed_now()

    def struck_with(self, position: int) -> None:
        """Note that a momentary fault struck with the trade at that position, or the first one after it."""
        [(_, trade), *_] = self.market.placed(position, position + 1000)
        self.struck_at = self.healed_at = trade.time / 1_000_000

    def struck_now(self) -> None:
        """Note that the fault begins."""
        self.struck_at = time.time()

    def healed_now(self) -> None:
        """Note that the fault is over."""
        self.healed_at = time.time()

    def on_topic(self, trade_id: int) -> bool:
        """Whether a trade has come onto the topic."""
        return trade_id in self._follower.arrivals

    @property
    def loaded(self) -> int:
        """Number of different trades that are on the topic."""
        return len(self._follower.arrivals)

    @property
    def log(self) -> str:
        """What all loaders of the trial wrote to standard error."""
        return "".join(loader.errors for loader in self.loaders) if self._log is None else self._log

    @property
    def peak_memory(self) -> float:
        """MiB that a loader held at most so far."""
        return self._memory.peak

    def last_words(self) -> str:
        """The last log line."""
        return (self.log.splitlines() or ["nothing in the log"])[-1]

    def named(self) -> set[int]:
        """The ids that telemetry named as missing."""
        return named_ids(event["message"] for event in self.workflow.events())

    # -- the judgement

    def _running(self) -> bool:
        return any(loader.process.poll() is None for loader in self.loaders)

    def _judge(self) -> None:
        outcome = self.outcome
        outcome.exit_codes = [code if code >= 0 else 128 - code for code in map(_code, self.loaders)]
        outcome.peak_memory = self._memory.peak or None
        if self.struck_at is not None:
            outcome.detect = first_sign(self.log, self.struck_at, self._quiet_until)
        if self.healed_at is not None:
            arrivals, healed_at = self._follower.arrivals, self.healed_at
            outcome.recover = max(recovery(market, arrivals, healed_at) for market in self.markets)
        for column, limit in self._limits.items():
            taken = getattr(outcome, column)
            if limit is not None and (taken is None or taken > limit):
                outcome.broken.append(f"{taken} s to {column}, where the limit is {limit:g}")
        outcome.counts = self._compare()
        outcome.broken += outcome.counts.faults(self.expected)
        with self.promise():
            self._judge_names()
        if "Traceback" in self.log:
            outcome.broken.append("a stack trace in the log")

    def _compare(self) -> Counts:
        records: dict[str, list[Message]] = {market.symbol: [] for market in self.markets}
        for record in chain.from_iterable(read_topic(self.workflow.servers, topic) for topic in self._topics):
            if record.value() not in self._foreign:
                # A record without a key of ours counts as altered.
                records.get((record.key() or b"").decode(), records[self.market.symbol]).append(record)
        found = {}
        for market in self.markets:
            own, goal = records[market.symbol], self._goals.get(market.symbol)
            found[market.symbol] = compare(market, own, goal=goal, excused=self.excused, behind=self.behind)
        return total(found)

    def _judge_names(self) -> None:
        owed, named = self.excused | {hole for market in self.markets for hole in market.holes}, self.named()
        # Ids issued since, or those of a gap that the next run fills, are not to be named.
        wanted = {trade_id for trade_id in owed if trade_id <= max(self._follower.arrivals, default=0)}
        assert named == wanted, f"{len(named)} ids named as missing, where it is {len(wanted)}"
        if named:
            self.outcome.remark = f"{len(named)} ids named as missing"


def _code(loader: Loader) -> int:
    return loader.process.returncode
