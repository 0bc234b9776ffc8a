"""A lasting link to the broker: one thread that connects, serves and connects again, for ever.

Messages are taken without waiting into a short queue, and refused when it is full: keeping and
dropping is the caller's business (`agent.outbox`). A message that was taken is sent in order, and
QoS 1 messages that an old connection left unacknowledged are sent again before anything newer.
Retained messages are kept, the newest of each topic, and told again on every new connection.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from agent import stallpoint
from agent.backoff import Backoff
from agent.errors import AgentError
from agent.mqttconnect import connect
from agent.mqttcounts import LinkCounts
from agent.mqttmessage import Handlers, Message
from agent.mqttpaho import MAX_INCOMING_BYTES
from agent.mqttqueue import MAX_WAITING, SendQueue
from agent.mqttreason import SessionLostError
from agent.mqttsubscriptions import Subscriptions
from agent.progress import Activity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agent.config import MqttConfig
    from agent.mqttcounts import Cause
    from agent.mqttqueue import Entry
    from agent.mqttsession import Session

log = logging.getLogger(__name__)

READY_BELOW = MAX_WAITING // 2
"""After a refusal the caller is told when so few are left, so that it is not told for each one."""

STEP_S = 1.0
"""Longest sleep of the thread; keep-alives are measured in seconds."""

STABLE_S = 10.0
"""A connection that lasted so long was a success: the next delay begins small again."""

GUESS_AFTER = 10
"""A broker that spoke MQTT 5 and now hangs up or stays silent is in trouble rather than old; but
after so many failures in a row it may be another one."""

JOIN_MARGIN_S = 0.5
"""Beyond the time to flush, for the goodbye itself."""


class Link:
    """Publishes and subscribes; an `agent.interfaces.Broker`, for use from any thread.

    Args:
        config: the broker.
        client_id: unique at the broker.
        will: called for each connection; what the broker shall publish when we vanish.
        backoff: delays between attempts; made from the settings by default.
        max_incoming_bytes: a larger packet ends the connection.

    Attributes:
        reason: why there is no connection at present, or empty.
        activity: what its thread does at present: an attempt to connect, or one step of serving.
        cpu_s: processor time that the link's thread has taken, in seconds.
    """

    def __init__(
        self,
        config: MqttConfig,
        client_id: str,
        will: Callable[[], Message] | None = None,
        backoff: Backoff | None = None,
        max_incoming_bytes: int = MAX_INCOMING_BYTES,
    ) -> None:
        self.reason = ""
        self.cpu_s = 0.0
        self._config = config
        self._client_id = client_id
        self._will = will
        self._max_incoming_bytes = max_incoming_bytes
        self._backoff = backoff or Backoff(config.reconnect_initial_s, config.reconnect_max_s)
        self.activity = Activity()
        self._lock = threading.Condition()
        self._queue = SendQueue()
        self._subscriptions = Subscriptions()
        self._listeners: list[Callable[[], None]] = []
        self._refused = False
        self._counts = LinkCounts()
        self._session: Session | None = None
        self._up = False
        self._spoke_5 = False
        self._failures = 0
        self._closing = threading.Event()
        self._deadline = 0.0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self._thread.start()

    @property
    def connected(self) -> bool:
        """True while a session with the broker is up."""
        return self._up

    @property
    def protocol(self) -> str | None:
        """MQTT version of the present session, "5" or "3.1.1"; None without one."""
        session = self._session
        return session.version if session is not None and self._up else None

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int,
        retain: bool = False,
        schema: str = "",
        expiry_s: int | None = None,
        acknowledged: Callable[[], None] | None = None,
    ) -> bool:
        """Take one message without waiting; see `agent.mqttmessage.Message`.

        Returns:
            False if it was not taken: no connection, or too many messages wait.
        """
        message = Message(topic, payload, qos, retain, schema, expiry_s, acknowledged)
        with self._lock:
            if not self._up or not self._queue.take(message):
                self._refused = True
                return False
            session = self._session
        if session is not None:
            session.wake()
        return True

    def on_ready(self, callback: Callable[[], None]) -> None:
        """Have `callback` called, from the link's thread, when messages are taken again.

        It must be quick and must not raise.
        """
        with self._lock:
            self._listeners.append(callback)

    def set_retained(self, topic: str, payload: bytes, schema: str = "") -> None:
        """Keep a message told: now, and again on every new connection. The newest wins."""
        with self._lock:
            self._queue.keep(Message(topic, payload, qos=1, retain=True, schema=schema))
            session = self._session
        if session is not None:
            session.wake()

    def subscribe(
        self, topic_filter: str, callback: Callable[[str, bytes], None], qos: int = 0
    ) -> None:
        """Have `callback(topic, payload)` called for each message, on every connection.

        It is called from the link's thread, which does nothing else meanwhile, and must not raise.
        """
        self.subscribe_all((topic_filter,), callback, qos)

    def subscribe_all(
        self, topic_filters: Iterable[str], callback: Callable[[str, bytes], None], qos: int = 0
    ) -> None:
        """As `subscribe`, in as few packets as possible."""
        with self._lock:
            for topic_filter in topic_filters:
                self._subscriptions.add(topic_filter, callback, qos)
            session = self._session
        if session is not None:
            session.wake()

    def unsubscribe(self, topic_filters: Iterable[str]) -> None:
        """Have nothing called for these any more; the broker is told when it is worth a packet."""
        with self._lock:
            self._subscriptions.remove(topic_filters)
            session = self._session
        if session is not None:
            session.wake()

    def counters(self) -> dict[str, object]:
        """Plain values for telemetry: what happened since the start."""
        with self._lock:
            waiting = self._queue.load
        return {**self._counts.told(), "waiting": waiting}

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything taken is sent, and acknowledged where it is to be.

        Returns:
            False if time was over.
        """
        with self._lock:
            return self._lock.wait_for(self._all_sent, timeout_s)

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait for a connection.

        Returns:
            False if time was over; `reason` says why.
        """
        with self._lock:
            return self._lock.wait_for(lambda: self._up, timeout_s)

    def close(self, timeout_s: float) -> None:
        """Send what was taken if there is a connection, say goodbye, and end; never raises."""
        self._deadline = time.monotonic() + timeout_s
        self._closing.set()
        session = self._session
        if session is not None:
            session.wake()
        if self._thread is not None:
            self._thread.join(timeout_s + JOIN_MARGIN_S)

    def _run(self) -> None:
        while not self._closing.is_set():
            began = time.monotonic()
            try:
                self.activity.mark()
                self._connect_and_serve()
            except AgentError as error:
                self._note_failure(str(error))
            except Exception:
                # A bug in a callback or the library must not end all publishing.
                self._counts.note("failures")
                log.exception("the connection to the broker failed; it is made anew")
            self.activity.rest()
            if time.monotonic() - began >= STABLE_S:
                self._backoff.reset()
            if not self._closing.is_set():
                self._closing.wait(self._backoff.next_delay())

    def _connect_and_serve(self) -> None:
        handlers = Handlers(self._received, self._acknowledged, self._subscribed)
        will = self._will() if self._will is not None else None
        guess = not self._spoke_5 or self._failures >= GUESS_AFTER
        session = connect(
            self._config,
            self._client_id,
            handlers,
            will,
            guess=guess,
            max_incoming_bytes=self._max_incoming_bytes,
        )
        try:
            self._begin(session)
            self._serve(session)
        except SessionLostError as error:
            # Before it is said that there is no connection: whoever sees that may ask why.
            if not self._closing.is_set():
                self._note_failure(str(error))
        finally:
            self._end(session)

    def _note_failure(self, reason: str) -> None:
        self._counts.note("failures")
        self._failures += 1
        # A broker that is away for a day is told once, not thousands of times.
        level = logging.DEBUG if reason == self.reason else logging.WARNING
        log.log(level, "%s; tried again for ever", reason)
        self.reason = reason

    def _begin(self, session: Session) -> None:
        with self._lock:
            self._subscriptions.connected()
            self._session, self._up = session, True
            self._counts.note("connects")
            self._refused = True
            self._lock.notify_all()
        self._spoke_5 = session.version == "5"
        self._failures = 0
        self.reason = ""
        secured = f", {session.tls_version}" if session.tls_version else ""
        log.info("broker %s: connected, MQTT %s%s", session.where, session.version, secured)

    def _end(self, session: Session) -> None:
        with self._lock:
            # After a goodbye the broker forgets the will, which says what was left unsaid.
            goodbye = self._all_sent()
            self._session, self._up = None, False
            self._counts.note("disconnects")
            self._queue.disconnected()
            self._lock.notify_all()
        session.close(goodbye=goodbye)

    def _serve(self, session: Session) -> None:
        while True:
            self.activity.mark()
            stallpoint.hit("link")
            self._ask(session)
            self._send(session)
            with self._lock:
                done = self._all_sent()
                if done:
                    self._lock.notify_all()
            if self._closing.is_set() and (done or time.monotonic() >= self._deadline):
                return
            left = self._deadline - time.monotonic() if self._closing.is_set() else STEP_S
            session.step(max(0.0, min(STEP_S, left)))
            self.cpu_s = time.thread_time()

    def _all_sent(self) -> bool:
        session = self._session
        return self._queue.empty and (session is None or session.clear)

    def _ask(self, session: Session) -> None:
        with self._lock:
            left = self._subscriptions.leave()
            new = self._subscriptions.ask()
        if left:
            session.unsubscribe(left)
        while new:
            packet_id = session.subscribe(new)
            with self._lock:
                self._subscriptions.asked(packet_id, [topic_filter for topic_filter, _ in new])
                new = self._subscriptions.ask()

    def _send(self, session: Session) -> None:
        while session.clear and self._queue.unacknowledged < session.inflight_limit:
            with self._lock:
                entry = self._queue.next()
            if entry is None:
                break
            self._send_one(session, entry)
        self._tell_ready()

    def _send_one(self, session: Session, entry: Entry) -> None:
        message = entry.message
        if not session.fits(message):
            # The broker may take more another day: a retained message is offered then.
            self._drop("too_large", message, "is larger than the broker takes", self._queue.done)
            return
        if entry.hopeless:
            why = "was sent several times and never acknowledged"
            self._drop("given_up", message, why, self._queue.give_up)
            return
        # Before sending: a message may break the connection while it is written.
        entry.sends += 1
        packet_id = session.publish(message)
        with self._lock:
            self._counts.note("sent")
            if session.awaits_acknowledgement(message):
                self._queue.sent(packet_id)
            else:
                self._queue.done()

    def _drop(self, cause: Cause, message: Message, why: str, remove: Callable[[], None]) -> None:
        with self._lock:
            remove()
            first = self._counts.note(cause)
        level = logging.WARNING if first else logging.DEBUG
        size = len(message.payload)
        log.log(level, "a message of %d bytes on %s %s: dropped", size, message.topic, why)

    def _tell_ready(self) -> None:
        with self._lock:
            if not self._refused or self._queue.load > READY_BELOW:
                return
            self._refused = False
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener()

    def _received(self, topic: str, payload: bytes) -> None:
        with self._lock:
            callbacks = self._subscriptions.callbacks(topic)
        for callback in callbacks:
            callback(topic, payload)

    def _acknowledged(self, mid: int, refusal: str) -> None:
        with self._lock:
            message = self._queue.acknowledged(mid)
            if message is None:
                return
            first = self._counts.note("refused" if refusal else "acknowledged")
        if message.acknowledged is not None and not refusal:
            message.acknowledged()
        if refusal:
            level = logging.WARNING if first else logging.DEBUG
            log.log(level, "the broker refuses messages on %s: %s", message.topic, refusal)

    def _subscribed(self, mid: int, refusals: tuple[str, ...]) -> None:
        with self._lock:
            topic_filters = self._subscriptions.answered(mid)
        for topic_filter, refusal in zip(topic_filters, refusals, strict=False):
            if refusal:
                log.warning("the broker refuses the subscription to %s: %s", topic_filter, refusal)
