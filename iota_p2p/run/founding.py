"""Making a run: packing its data into shards, once, by whoever starts it."""

from collections.abc import Iterable, Iterator

from pydantic import ValidationError

from iota_p2p.run.corpus import is_heldout
from iota_p2p.run.data import RunData
from iota_p2p.run.shards import ShardStore, data_spec
from iota_p2p.run.spec import RunPlan, RunSpec, explain
from iota_p2p.run.tokens import Tokenizer
from iota_p2p_crypto.errors import UserError


def found_run(
    plan: RunPlan, documents: Iterable[str], tokenizer: Tokenizer, store: ShardStore, *, seed: int
) -> RunSpec:
    """Pack documents into the store and return the spec of the plan on them.

    Documents are read once and dropped as they are packed; only the held-out sixteenth is held in memory.

    Raises:
        UserError: if the data does not fit the plan, or the disk does not take it.
    """
    if tokenizer.vocab_size > plan.model.vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} ids, but model.vocab_size of {plan.name} is "
            f"{plan.model.vocab_size}: use a config with at least as many"
        )
    heldout: list[str] = []
    try:
        data = data_spec(_training(documents, heldout), heldout, tokenizer, store)
    except ValidationError as error:  # more shards than a spec may list
        raise UserError(f"the corpus does not fit a run: {explain(error)}") from error
    except OSError as error:
        raise UserError(f"cannot write shards to {store.folder}: {error.strerror}") from error
    spec = plan.with_data(data, seed=seed)
    if not RunData(spec, store).microbatches_per_source:
        raise UserError(f"the corpus is too small for one microbatch of {plan.epoch.microbatch_size} sequences")
    return spec


def _training(documents: Iterable[str], heldout: list[str]) -> Iterator[str]:
    """Yield the documents to train on, and put the others aside meanwhile."""
    for text in documents:
        if is_heldout(text):
            heldout.append(text)
        else:
            yield text
