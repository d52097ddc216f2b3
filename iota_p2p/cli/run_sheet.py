"""All there is to know of a run, as one JSON value and as a page of text."""

from typing import Any

from rich.console import Console
from rich.table import Table

from iota_p2p.model.run_figures import RunFigures, StageNeeds
from iota_p2p.run.spec import DataSpec, RunPlan, RunSpec, ShardRef

_UNITS = ("", " K", " M", " G", " T", " P")


def run_sheet(plan: RunPlan, figures: RunFigures) -> dict[str, Any]:
    """Return the JSON form; a config has no run id, seed and data."""
    sheet: dict[str, Any] = {"run_id": None}
    if isinstance(plan, RunSpec):
        sheet = {"run_id": plan.run_id.hex(), "seed": plan.seed, "data": _data(plan.data)}
    fixed = ("name", "protocol_version", "model", "boundary", "optimizer", "epoch")
    return {
        **sheet,
        **plan.model_dump(mode="json", include=set(fixed)),
        "bytes_per_token": {"forward": figures.forward_bytes, "backward": figures.backward_bytes},
        "ratio": {"forward": figures.forward_ratio, "backward": figures.backward_ratio},
        "stages": [_stage(stage) for stage in figures.stages],
        "totals": {
            "num_parameters": figures.num_parameters,
            "flops_per_token": figures.flops_per_token,
            "tokens_per_microbatch": figures.tokens_per_microbatch,
            "tokens_per_epoch": figures.tokens_per_epoch,
        },
    }


def print_sheet(plan: RunPlan, figures: RunFigures) -> None:
    """Print the page."""
    console = Console(soft_wrap=True, highlight=False)
    for name, value in _lines(plan, figures):
        console.print(f"{name:<12}{value}", markup=False)
    console.print()
    console.print(_table(figures))
    console.print("\nMemory per stage; every further microbatch in flight adds the column of that name again.")


def _lines(plan: RunPlan, figures: RunFigures) -> list[tuple[str, str]]:
    model, epoch = plan.model, plan.epoch
    lines = [("run", plan.name)]
    if isinstance(plan, RunSpec):
        lines += [("run id", plan.run_id.hex()), ("seed", str(plan.seed))]
    lines += [
        ("model", f"{_short(figures.num_parameters)} parameters, {model.num_layers} layers, width {model.width}"),
        ("attention", f"{model.num_heads} heads, {model.num_kv_heads} of keys and values"),
        ("vocabulary", f"{model.vocab_size:,}"),
        ("sequence", f"{model.sequence_length:,} tokens, {model.precision}"),
        ("boundary", _boundary(plan, figures)),
        ("microbatch", f"{epoch.microbatch_size} sequences, {figures.tokens_per_microbatch:,} tokens"),
        ("epoch", _epoch(plan, figures)),
        ("compute", f"{_short(figures.flops_per_token)}FLOP per token"),
    ]
    if isinstance(plan, RunSpec):
        parts = {"train": plan.data.train, "held out": plan.data.heldout}
        lines += [(name, f"{_tokens(refs):,} tokens in {_shards(refs)}") for name, refs in parts.items()]
        lines.append(("tokenizer", plan.data.tokenizer.digest or plan.data.tokenizer.kind))
    return lines


def _epoch(plan: RunPlan, figures: RunFigures) -> str:
    epoch = plan.epoch
    return (
        f"{epoch.target_microbatches:,} microbatches ({_short(figures.tokens_per_epoch)} tokens) or "
        f"{epoch.deadline_s:,} s, {epoch.inner_steps} inner steps of {epoch.microbatches_per_step} each"
    )


def _boundary(plan: RunPlan, figures: RunFigures) -> str:
    return (
        f"{plan.boundary.kind}: {figures.forward_bytes:,} bytes per token forward ({figures.forward_ratio:.0f}x), "
        f"{figures.backward_bytes:,} backward ({figures.backward_ratio:.0f}x)"
    )


def _table(figures: RunFigures) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("stage", "blocks", "parameters", "weights", "gradients", "optimizer", "microbatch", "in all"):
        table.add_column(title, justify="right")
    for stage in figures.stages:
        own = stage.figures
        memory = (own.weight_bytes, stage.gradient_bytes, stage.optimizer_bytes, stage.activation_bytes)
        sizes = [f"{_short(num_bytes)}B" for num_bytes in (*memory, sum(memory))]
        table.add_row(str(own.index), str(own.num_blocks), _short(own.num_parameters), *sizes)
    return table


def _stage(stage: StageNeeds) -> dict[str, int]:
    own = stage.figures
    return {
        "stage": own.index,
        "num_blocks": own.num_blocks,
        "num_parameters": own.num_parameters,
        "flops_per_token": own.flops_per_token,
        "weight_bytes": own.weight_bytes,
        "gradient_bytes": stage.gradient_bytes,
        "optimizer_bytes": stage.optimizer_bytes,
        "activation_bytes": stage.activation_bytes,
        "forward_bytes_per_token": own.forward_bytes,
        "backward_bytes_per_token": own.backward_bytes,
    }


def _data(data: DataSpec) -> dict[str, Any]:
    parts = {"train": data.train, "heldout": data.heldout}
    counts = {name: {"num_shards": len(refs), "num_tokens": _tokens(refs)} for name, refs in parts.items()}
    return {"tokenizer": data.tokenizer.model_dump(mode="json"), **counts}


def _tokens(refs: tuple[ShardRef, ...]) -> int:
    return sum(ref.num_tokens for ref in refs)


def _shards(refs: tuple[ShardRef, ...]) -> str:
    return f"{len(refs):,} shard{'' if len(refs) == 1 else 's'}"


def _short(number: int) -> str:
    """Return a number in three digits and a power of 1,000: 1234567 as `1.23 M`."""
    value, unit = float(number), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:  # noqa: PLR2004 - would round to 1000
        value, unit = value / 1000, unit + 1
    return f"{value:.3g}{_UNITS[unit]}"
