"""How a testnet's training went over time: samples of tokens and losses, rates, and recoveries from kills. Pure."""

from dataclasses import dataclass, field

# Samples kept; older ones are thinned, so an endless run keeps its whole curve in 100 kB.
_MAX_SAMPLES = 2000
_KEPT_WHOLE = 120  # the newest, for rates
RATE_WINDOW_S = 5.0
# Recovery as design 12 has it: throughput is back when it is at 90 % of what it was, over this long. Statuses come
# once per second, so a shorter window would see their rhythm instead of the training's.
RECOVERED_SHARE = 0.9
RECOVERY_WINDOW_S = 3.0
RATE_BEFORE_S = 10.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment: tokens so far, train loss since the last sample if anything was trained, last validation loss."""

    time_s: float
    tokens: int
    train_loss: float | None
    val_loss: float | None


@dataclass(slots=True)
class Span:
    """The first and last value of something that is measured again and again."""

    first: float | None = None
    last: float | None = None

    def add(self, value: float) -> None:
        """Take one measurement."""
        self.first = value if self.first is None else self.first
        self.last = value


@dataclass(slots=True)
class History:
    """The training so far.

    Attributes:
        train_loss: nats per token that sources see, each weighted by the tokens it gained.
        val_loss: nats per token on held-out data.
        began_s, began_tokens: when the first tokens were heard of, and how many those were.
        ended_s, ended_tokens: the same of the last.
    """

    samples: list[Sample] = field(default_factory=list)
    train_loss: Span = field(default_factory=Span)
    val_loss: Span = field(default_factory=Span)
    began_s: float | None = None
    began_tokens: int = 0
    ended_s: float = 0.0
    ended_tokens: int = 0
    _gained: int = 0
    _loss_sum: float = 0.0

    def train(self, now_s: float, tokens: int, gained: int, loss: float | None) -> None:
        """Note that a source gained tokens, at a smoothed loss, and that all sources together now have `tokens`."""
        if gained <= 0:
            return
        if self.began_s is None:
            self.began_s, self.began_tokens = now_s, tokens
        self.ended_s, self.ended_tokens = now_s, tokens
        if loss is not None:
            self._gained += gained
            self._loss_sum += gained * loss
            if self.train_loss.first is None:
                self.train_loss.add(loss)

    def validate(self, loss: float) -> None:
        """Note a validation loss."""
        self.val_loss.add(loss)

    def tick(self, now_s: float, tokens: int) -> None:
        """Take a sample."""
        train = None
        if self._gained:
            train = self._loss_sum / self._gained
            self.train_loss.add(train)
            self._gained, self._loss_sum = 0, 0.0
        self.samples.append(Sample(now_s, tokens, train, self.val_loss.last))
        if len(self.samples) > _MAX_SAMPLES:
            self.samples = self.samples[:-_KEPT_WHOLE:2] + self.samples[-_KEPT_WHOLE:]

    def rate(self, window_s: float = RATE_WINDOW_S) -> float:
        """Return tokens per second over the newest `window_s`."""
        if not self.samples:
            return 0.0
        newest = self.samples[-1]
        for sample in reversed(self.samples):
            if newest.time_s - sample.time_s >= window_s:
                break
        elapsed_s = newest.time_s - sample.time_s
        return (newest.tokens - sample.tokens) / elapsed_s if elapsed_s > 0 else 0.0

    def rate_before_kill(self) -> float:
        """Return the throughput that a recovery is compared with."""
        return self.rate(RATE_BEFORE_S)

    @property
    def seconds(self) -> float:
        """From the first tokens heard of to the last."""
        return self.ended_s - self.began_s if self.began_s is not None else 0.0

    @property
    def tokens_per_s(self) -> float:
        """Over `seconds`; the tokens that the first word already brought were trained before."""
        return (self.ended_tokens - self.began_tokens) / self.seconds if self.seconds > 0 else 0.0


@dataclass(slots=True)
class Recovery:
    """A kill and how the network took it.

    Attributes:
        tokens: of the network when it happened.
        rate: its tokens per second before.
        serving_s: how long until the killed peer served a stage again; None if it has not.
        recovered_s: how long until the throughput was back, to the start of the first good window; None if it is not.
    """

    peer: int
    killed_s: float
    tokens: int
    rate: float
    serving_s: float | None = None
    recovered_s: float | None = None
    _window: list[tuple[float, int]] = field(default_factory=list)

    def tick(self, now_s: float, tokens: int) -> None:
        """Look whether the throughput is back."""
        if self.recovered_s is not None or self.rate <= 0:
            return
        self._window = self._window or [(self.killed_s, self.tokens)]
        self._window.append((now_s, tokens))
        while len(self._window) > 1 and now_s - self._window[1][0] >= RECOVERY_WINDOW_S:
            self._window.pop(0)
        since_s, before = self._window[0]
        if now_s - since_s < RECOVERY_WINDOW_S:
            return
        if (tokens - before) / (now_s - since_s) >= RECOVERED_SHARE * self.rate:
            self.recovered_s = since_s - self.killed_s
            self._window.clear()
