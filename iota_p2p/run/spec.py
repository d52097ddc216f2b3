"""`RunSpec`: everything about a run that every peer must agree on, and the run id that names it.

The canonical bytes of the spec are its only binding form; their SHA-256 is the run id. Canonical bytes hold no
floats (docs/decisions/0102), so every real number is an exact decimal: TOML's `0.02` is read as a decimal, never
as a binary float, and travels as the shortest plain text, "0.02". Sections that are absent are left out of the
bytes, so a later version may add optional sections (scoring, election, settlement) without changing the id of a
run that lacks them.

A `RunPlan` is a spec that has not met its data yet: what `configs/*.toml` hold. `RunPlan.with_data` makes it a spec.
"""

from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import Annotated, Any, Literal, NewType, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from iota_p2p_crypto import canonical
from iota_p2p_crypto.digest import digest
from iota_p2p_crypto.errors import LocalProtocolError, MalformedError, WrongRunError
from iota_p2p_protocols.butterfly.shard_map import MAX_MEMBERS

RunId = NewType("RunId", bytes)

# 4,096 shards at some 110 bytes each, and room. A spec is fetched from a peer before anything is trusted.
MAX_SPEC_BYTES = 512 * 1024
MAX_SHARDS = 4096
# Sizes a spec may state, so that a hostile one cannot make a peer allocate without end: beyond any model in sight.
_MAX_WIDTH = 1 << 17
_MAX_LAYERS = 1024
_MAX_VOCABULARY = 1 << 22
_MAX_SEQUENCE = 1 << 20
_MAX_COUNT = 1 << 40
_MAX_DECIMAL_DIGITS = 18  # all of them exact in text; far more than any learning rate has


def _exact(value: object) -> Decimal:
    """Return the decimal that a TOML number or canonical text states, without a float in between."""
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        raise ValueError("expected a decimal number")  # noqa: TRY004 - pydantic turns ValueError into its own
    try:
        number = Decimal(value)
    except InvalidOperation as error:
        raise ValueError("expected a decimal number") from error
    if not number.is_finite() or not 0 <= number < _MAX_COUNT:
        raise ValueError(f"expected a decimal in [0, {_MAX_COUNT})")
    digits, exponent = number.normalize().as_tuple()[1:]
    if len(digits) > _MAX_DECIMAL_DIGITS or not isinstance(exponent, int) or exponent < -_MAX_DECIMAL_DIGITS:
        raise ValueError(f"expected at most {_MAX_DECIMAL_DIGITS} digits")
    return number.normalize()


def _fraction(value: Decimal) -> Decimal:
    if value > 1:
        raise ValueError("expected a number in [0, 1]")
    return value


Exact = Annotated[Decimal, BeforeValidator(_exact)]
Fraction = Annotated[Exact, AfterValidator(_fraction)]
Count = Annotated[int, Field(gt=0, le=_MAX_COUNT)]
HexDigest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Section(BaseModel):
    """A part of the spec: strict, immutable, and without unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class ModelSpec(Section):
    """The decoder's shape and where it is cut into stages.

    Attributes:
        ffn_width: channels inside the SwiGLU.
        sequence_length: tokens per sequence.
        rope_base: base of the rotary position frequencies.
        embedding_std: initial standard deviation of the token embedding; .3 trains far faster than .02 (0105).
        stage_cuts: first block of every stage but the first; 4 layers with cuts (1, 3) are stages of 1, 2 and 1.
        precision: what matrix products are computed in; weights and sums stay float32.
    """

    vocab_size: Annotated[int, Field(ge=2, le=_MAX_VOCABULARY)]
    width: Annotated[int, Field(ge=2, le=_MAX_WIDTH)]
    num_layers: Annotated[int, Field(gt=0, le=_MAX_LAYERS)]
    num_heads: Annotated[int, Field(gt=0, le=_MAX_WIDTH)]
    num_kv_heads: Annotated[int, Field(gt=0, le=_MAX_WIDTH)]
    ffn_width: Annotated[int, Field(gt=0, le=_MAX_WIDTH)]
    sequence_length: Annotated[int, Field(gt=0, le=_MAX_SEQUENCE)]
    rope_base: Count = 10_000
    embedding_std: Exact = Decimal("0.3")
    stage_cuts: Annotated[tuple[int, ...], Field(max_length=_MAX_LAYERS)] = ()
    precision: Literal["float32", "bfloat16"] = "float32"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.width % (2 * self.num_heads):
            raise ValueError(f"width {self.width} must be a multiple of twice num_heads {self.num_heads}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads {self.num_heads} must be a multiple of num_kv_heads {self.num_kv_heads}")
        edges = (0, *self.stage_cuts, self.num_layers)
        if any(low >= high for low, high in pairwise(edges)):
            raise ValueError(f"stage_cuts {self.stage_cuts} must rise strictly between 0 and {self.num_layers}")
        return self

    @property
    def num_stages(self) -> int:
        """How many stages the cuts make."""
        return len(self.stage_cuts) + 1

    @property
    def head_dim(self) -> int:
        """Channels per attention head."""
        return self.width // self.num_heads

    def blocks_of(self, stage: int) -> range:
        """Return the global indices of the blocks in a stage."""
        edges = (0, *self.stage_cuts, self.num_layers)
        return range(edges[stage], edges[stage + 1])


class BoundarySpec(Section):
    """What travels between two stages (design 7); see `iota_p2p.model.boundary`.

    Attributes:
        kind: `none` is float32, `bf16` and `int8` send all channels, the others a bottleneck.
        width: numbers per token that travel; 0 for the three kinds that send all channels.
        code_bits: bits per number of a bottleneck; 16 is bfloat16.
        token_table_rank: rank of the token tables of `anchored` and `subspace`; 0 stores them in full.
    """

    kind: Literal["none", "bf16", "int8", "iota", "anchored", "subspace"]
    width: Annotated[int, Field(ge=0, le=_MAX_WIDTH)] = 0
    code_bits: Literal[4, 8, 16] = 8
    token_table_rank: Annotated[int, Field(ge=0, le=_MAX_WIDTH)] = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.width == 0) != (self.kind in ("none", "bf16", "int8")):
            raise ValueError(f"width {self.width} does not fit kind {self.kind!r}: 0 for all channels, else above 0")
        return self


class OptimizerSpec(Section):
    """Muon for the matrices inside blocks, AdamW for everything else, and one schedule for both.

    Attributes:
        clip_norm: largest gradient norm of a stage per step; 0 does not clip.
        warmup_steps: steps over which the rate rises linearly.
        decay_steps: steps after which the rate has fallen, linearly, to `final_fraction`; 0 never decays.
    """

    muon_rate: Exact = Decimal("0.02")
    muon_momentum: Fraction = Decimal("0.95")
    muon_weight_decay: Exact = Decimal(0)
    adamw_rate: Exact = Decimal("0.003")
    adamw_beta1: Fraction = Decimal("0.9")
    adamw_beta2: Fraction = Decimal("0.95")
    adamw_weight_decay: Exact = Decimal("0.1")
    clip_norm: Exact = Decimal(1)
    warmup_steps: Annotated[int, Field(ge=0, le=_MAX_COUNT)] = 20
    decay_steps: Annotated[int, Field(ge=0, le=_MAX_COUNT)] = 0
    final_fraction: Fraction = Decimal("0.15")


class EpochSpec(Section):
    """How work is counted and when an epoch closes.

    Attributes:
        microbatch_size: sequences per microbatch.
        microbatches_per_step: microbatches a replica sums before one inner step.
        inner_steps: inner steps a replica takes per epoch at least to have its contribution counted.
        target_microbatches: run-wide verified microbatches that close the epoch.
        deadline_s: seconds after which it closes regardless.
    """

    microbatch_size: Annotated[int, Field(gt=0, le=1 << 16)]
    microbatches_per_step: Annotated[int, Field(gt=0, le=1 << 16)] = 1
    inner_steps: Annotated[int, Field(gt=0, le=1 << 20)]
    target_microbatches: Count
    deadline_s: Count


class MergeSpec(Section):
    """How replicas of a stage become one at the end of an epoch (protocols/spec/butterfly.md).

    A run without this section never merges: its replicas drift apart, which only comparisons want.

    Attributes:
        codec: how pseudo-gradients travel; docs/decisions/0202 has the measurements.
        rate: of the outer step; 1 without momentum is plain averaging, best with two replicas a stage; from four on
            0.7 with momentum 0.5 wins back a quarter of what drifting apart costs (docs/butterfly.md).
        momentum: Nesterov's; 0 is none.
        first_momentum: where it begins.
        momentum_warmup_epochs: epochs until it has risen to `momentum`.
        most_in_a_roster: more replicas than so many of a stage meet in a grid of several rosters; absent, as many as
            fit one.
    """

    codec: Literal["float32", "bfloat16", "int8", "top-k"] = "int8"
    rate: Exact = Decimal(1)
    momentum: Fraction = Decimal(0)
    first_momentum: Fraction = Decimal(0)
    momentum_warmup_epochs: Annotated[int, Field(ge=0, le=1 << 20)] = 0
    most_in_a_roster: Annotated[int, Field(ge=3, le=MAX_MEMBERS)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.first_momentum > self.momentum:
            raise ValueError(f"first_momentum {self.first_momentum} must not exceed momentum {self.momentum}")
        return self


class ValidationSpec(Section):
    """How work is scored (protocols/spec/scores.md).

    A run without this section elects nobody, and nobody scores it.

    Attributes:
        seats: how many validators an epoch wants.
        pot: units that an epoch pays out.
        step_ms: between the steps that follow an epoch's close; five of them must fit into an epoch.
        clasp_tolerance_ppm: harm that nobody is blamed for, of the mean loss.
        clasp_ruin_ppm: harm from which on nothing is paid.
        least_records: fewer records say nothing about a peer's harm.
        warmup_epochs: in the first epochs nobody is blamed for harm.
        replay_ppm: what a validator does again of an epoch, of what a peer does in it on average; all validators
            together spend no more than this share of the training.
        pair_every: of so many microbatches a source visits the data of one, which only it knows, once more along
            another pathway; 0 for none (docs/decisions/0306).
    """

    seats: Annotated[int, Field(gt=0, le=64)] = 16
    pot: Annotated[int, Field(ge=0, le=1 << 60)] = 1_000_000
    step_ms: Annotated[int, Field(ge=100, le=3_600_000)] = 2000
    clasp_tolerance_ppm: Annotated[int, Field(ge=0, le=1_000_000)] = 10_000
    clasp_ruin_ppm: Annotated[int, Field(ge=0, le=1_000_000)] = 30_000
    least_records: Count = 8
    warmup_epochs: Count = 1
    replay_ppm: Annotated[int, Field(ge=0, le=1_000_000)] = 100_000
    pair_every: Annotated[int, Field(ge=0, le=1 << 20)] = 16


class ShardRef(Section):
    """A content-addressed file of tokens: the SHA-256 of its bytes in hex, and how many tokens it holds."""

    digest: HexDigest
    num_tokens: Annotated[int, Field(gt=0, le=1 << 32)]


class TokenizerSpec(Section):
    """How text became tokens: plain bytes, or a Hugging Face `tokenizers` file named by digest."""

    kind: Literal["bytes", "file"] = "bytes"
    digest: HexDigest | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.kind == "file") != (self.digest is not None):
            raise ValueError("a tokenizer file needs its digest, byte tokens have none")
        return self


class DataSpec(Section):
    """The tokens to train on and the held-out tokens to score with."""

    tokenizer: TokenizerSpec = TokenizerSpec()
    train: Annotated[tuple[ShardRef, ...], Field(min_length=1, max_length=MAX_SHARDS)]
    heldout: Annotated[tuple[ShardRef, ...], Field(min_length=1, max_length=MAX_SHARDS)]


class RunPlan(Section):
    """A run without data and seed: what a TOML file under `configs/` states."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]
    protocol_version: Literal[1] = 1
    model: ModelSpec
    boundary: BoundarySpec
    optimizer: OptimizerSpec = OptimizerSpec()
    epoch: EpochSpec
    merge: MergeSpec | None = None
    validation: ValidationSpec | None = None

    def with_data(self, data: DataSpec, *, seed: int) -> "RunSpec":
        """Return the spec of this plan on this data, with initial weights drawn from `seed`."""
        fields = {name: getattr(self, name) for name in RunPlan.model_fields}
        return RunSpec(**fields, seed=seed, data=data)


class RunSpec(RunPlan):
    """A run: equal specs are the same run."""

    seed: Annotated[int, Field(ge=0, lt=1 << 63)]
    data: DataSpec

    def to_bytes(self) -> bytes:
        """Return the canonical bytes; raises LocalProtocolError if they pass MAX_SPEC_BYTES."""
        data = canonical.encode(_plain(self.model_dump()))
        if len(data) > MAX_SPEC_BYTES:
            raise LocalProtocolError(f"expected a spec of at most {MAX_SPEC_BYTES} bytes, got {len(data)}")
        return data

    @property
    def run_id(self) -> RunId:
        """The SHA-256 of the canonical bytes."""
        return RunId(digest(self.to_bytes()))

    @classmethod
    def from_bytes(cls, data: bytes, *, expected: RunId | None = None) -> "RunSpec":
        """Return the spec a peer sent.

        Raises:
            WrongRunError: if the bytes are not those of the `expected` run.
            MalformedError: if they are not the canonical bytes of a valid spec.
            OversizedError: if there are more than MAX_SPEC_BYTES.
        """
        run_id = RunId(digest(data))
        if expected is not None and run_id != expected:
            raise WrongRunError("run-id", f"expected the spec of run {expected.hex()}, got {run_id.hex()}")
        try:
            spec = cls.model_validate(canonical.decode(data, max_bytes=MAX_SPEC_BYTES))
        except ValidationError as error:
            raise MalformedError("run-spec", f"expected a valid run spec, got {explain(error)}") from error
        if spec.to_bytes() != data:  # such as 0.020 for 0.02, or a default left out: two ids for one run
            raise MalformedError("run-spec-form", "expected the canonical bytes of the spec, got another form")
        return spec


def explain(error: ValidationError) -> str:
    """Return the first thing wrong in one line, as `model.width: Input should be ...`."""
    first = error.errors(include_url=False, include_context=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"


def _plain(value: Any) -> Any:
    """Return a dumped spec with decimals as plain text and without absent sections."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    return value
