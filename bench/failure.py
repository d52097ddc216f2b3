"""What members that die or lie cost a butterfly: measured by simulation, against the formulas of docs/butterfly.md.

    python -m bench.failure

Runs the shard map, the agreement matrix and the settling of claims that peers run, with made-up digests in place of
sums. First: the share of shards that survive when each member dies with probability f. Second: k liars among N. The
matrix alone suspects whoever disagrees with most others; a proof, which a dispute over the same inputs always yields,
names the liar and nobody else. Liars may each lie in a way of their own ("apart"), all tell one lie ("together"), or
tell it only where both reducers are liars ("hidden"), which nobody sees who does not recompute such a shard.
"""

import argparse
import importlib
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.table import Table

from iota_p2p_crypto.digest import digest
from iota_p2p_protocols.butterfly.agreement import Reports, agreement_matrix, disputed, settle_all
from iota_p2p_protocols.butterfly.reducer_report import ReducerReport, ShardClaim
from iota_p2p_protocols.butterfly.shard_map import Shard, ShardMap, draw_shard_map

RESULTS = Path(__file__).parent / "results"
SIZES = (10, 50, 200)  # the last beyond what one butterfly takes, to see that the formula goes on
RATES = tuple(step / 20 for step in range(1, 11))  # .05 to .5
TRIALS = {10: 1000, 50: 100, 200: 10}  # about as many shards of each size
LIAR_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
LIAR_TRIALS = {10: 20, 50: 4, 200: 1}
WAYS = ("apart", "together", "hidden")
# What is drawn of `Detection`, the lines below first: several lie on each other.
LINES = (
    ("named", "C2-", 6),
    ("suspected", "C0-", 2),
    ("slandered", "C3--", 2),
    ("poisoned", "C1-", 2),
    ("lost", "k:", 2),
)
TRUTH = digest(b"what the inputs give")

CLAIM = ShardClaim(shard=0, digest=TRUTH)
REPORT = ReducerReport(
    run_id=bytes(32), sequence=0, issued_s=0, expires_s=1, epoch=0, stage=0, roster=bytes(32), claims=(CLAIM,)
)

Says = Callable[[int, Shard], bytes]  # the digest that a member claims of a shard


def honest(_member: int, _shard: Shard) -> bytes:
    """Tell the truth."""
    return TRUTH


def lying(how: str, liars: Collection[int]) -> Says:
    """Return what everybody says if these members lie in this way."""
    the_lie = digest(b"the lie")

    def says(member: int, shard: Shard) -> bytes:
        if member not in liars or (how == "hidden" and not liars_only(shard)):
            return TRUTH
        return digest(b"lie of %d" % member) if how == "apart" else the_lie

    def liars_only(shard: Shard) -> bool:
        return all(member in liars for member in shard.pair)

    return says


@dataclass(frozen=True)
class Detection:
    """What k liars among N achieve; shares between 0 and 1, means over the trials.

    Attributes:
        suspected: of the liars, those whom the matrix alone suspects.
        slandered: of the honest members, likewise.
        named: of the liars, those whom a proof names.
        poisoned: of the shards, those where a lie is taken.
        lost: of the shards, those that keep their old value.
    """

    members: int
    liars: int
    how: str
    suspected: float
    slandered: float
    named: float
    poisoned: float
    lost: float


def reports(drawn: ShardMap, says: Says) -> Reports:
    """Return everybody's report; copies are not validated, which is for what peers send."""
    claims: list[list[ShardClaim]] = [[] for _ in range(drawn.num_members)]
    for shard in drawn.shards:
        for member in shard.reducers:
            claims[member].append(CLAIM.model_copy(update={"shard": shard.index, "digest": says(member, shard)}))
    return {member: REPORT.model_copy(update={"claims": tuple(of)}) for member, of in enumerate(claims)}


def draw(members: int, trial: int) -> ShardMap:
    """Return the map of a trial, with a block in every shard."""
    return draw_shard_map(digest(b"%d %d" % (members, trial)), members, members * members)


def valid_fractions(members: int) -> list[float]:
    """Return for each rate the share of shards that survive."""
    drawn = draw(members, 0)
    everybody = reports(drawn, honest)
    rng = random.Random(members)
    fractions = []
    for rate in RATES:
        survived = []
        for _ in range(TRIALS[members]):
            alive = {member: report for member, report in everybody.items() if rng.random() >= rate}
            survived.append(mean(claim is not None for claim in settle_all(drawn, alive)))
        fractions.append(mean(survived))
    return fractions


def detect(members: int, num_liars: int, how: str) -> Detection:
    """Return how `num_liars` fare, drawn anew in each trial."""
    rng = random.Random(members * num_liars)
    figures = []
    for trial in range(LIAR_TRIALS[members]):
        drawn = draw(members, trial)
        liars = set(rng.sample(range(members), num_liars))
        said = reports(drawn, lying(how, liars))
        suspects = set(agreement_matrix(drawn, said).suspects())
        named = {member for shard in disputed(drawn, said) for member in shard.pair if member in liars}
        taken = settle_all(drawn, said, named)
        figures.append(
            (
                len(suspects & liars) / num_liars,
                len(suspects - liars) / (members - num_liars),
                len(named) / num_liars,
                mean(claim is not None and claim.digest != TRUTH for claim in taken),
                mean(claim is None for claim in taken),
            )
        )
    return Detection(members, num_liars, how, *(mean(column) for column in zip(*figures, strict=True)))


def survival_table(measured: dict[int, list[float]]) -> Table:
    """Return the table of valid fractions."""
    table = Table("f", "1 - f^2", *(f"N = {members}" for members in measured), title="shards that survive deaths")
    for index, rate in enumerate(RATES):
        found = (f"{fractions[index]:.4f}" for fractions in measured.values())
        table.add_row(f"{rate:.2f}", f"{1 - rate**2:.4f}", *found)
    return table


def detection_table(found: list[Detection]) -> Table:
    """Return the table of liars."""
    table = Table("N", "k", "lies", "k(k-1)/N(N-1)", "poisoned", "lost", "suspected", "slandered", "named")
    table.title = "what liars achieve (shards), and who is found (members)"
    for one in found:
        pairs = one.liars * (one.liars - 1) / (one.members * (one.members - 1))
        shares = (pairs, one.poisoned, one.lost, one.suspected, one.slandered, one.named)
        table.add_row(str(one.members), str(one.liars), one.how, *(f"{share:.3f}" for share in shares))
    return table


def draw_pictures(measured: dict[int, list[float]], found: list[Detection], path: Path) -> bool:
    """Draw both tables side by side; return False where matplotlib is not installed."""
    try:
        matplotlib: Any = importlib.import_module("matplotlib")  # optional: only the picture needs it
        figures: Any = importlib.import_module("matplotlib.figure")
    except ImportError:
        return False
    # Text stays text, and equal numbers make equal files.
    matplotlib.rcParams.update({"svg.hashsalt": "failure", "svg.fonttype": "none"})
    figure = figures.Figure(figsize=(14, 3.5), layout="tight")
    deaths, *lies = figure.subplots(1, 1 + len(WAYS))
    deaths.set(xlabel="f, share of members that die", title="shards that survive deaths")
    deaths.plot(RATES, [1 - rate**2 for rate in RATES], "k-", label="1 - f²")
    for marker, (members, fractions) in zip("os^", measured.items(), strict=True):
        deaths.plot(RATES, fractions, marker, markersize=4, label=f"N = {members}")
    for axes, how in zip(lies, WAYS, strict=True):
        rows = [one for one in found if (one.members, one.how) == (SIZES[1], how)]
        shares = [one.liars / one.members for one in rows]
        axes.set(xlabel="k / N, share of members that lie", title=f"N = {SIZES[1]}, lying {how}", ylim=(-0.05, 1.05))
        for name, style, width in LINES:
            axes.plot(shares, [getattr(one, name) for one in rows], style, linewidth=width, label=name)
    for axes in (deaths, lies[0]):
        axes.legend()
    figure.savefig(path, metadata={"Date": None})
    return True


def main() -> None:
    """Simulate, print both tables and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, default=RESULTS / "failure.svg")
    arguments = parser.parse_args()
    measured = {members: valid_fractions(members) for members in SIZES}
    found = [detect(members, round(share * members), how) for members in SIZES for how in WAYS for share in LIAR_SHARES]
    console = Console()
    console.print(survival_table(measured), detection_table(found))
    arguments.picture.parent.mkdir(exist_ok=True)
    drawn = draw_pictures(measured, found, arguments.picture)
    console.print(f"drawn: {arguments.picture}" if drawn else "no picture: matplotlib is not installed")


if __name__ == "__main__":
    main()
