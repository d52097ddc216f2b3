"""How each stage's replicas became one at the end of each epoch, from what all of them say. Pure."""

from dataclasses import dataclass, field

from iota_p2p_testnet.events import Merged

_KEPT_MATRICES = 64  # the last merges, for views; one line per member each


@dataclass(slots=True)
class StageEpoch:
    """One stage at the end of one epoch.

    Attributes:
        merged: what its members say, by member; the same of one merge but for bytes and seconds.
    """

    epoch: int
    stage: int
    merged: dict[int, Merged] = field(default_factory=dict)

    @property
    def members(self) -> int:
        """How many took part."""
        return max((len(one.members) for one in self.merged.values()), default=0)

    @property
    def digests(self) -> set[str]:
        """The weights that peers say they went on with; one if all is well."""
        return {one.digest for one in self.merged.values()}

    def to_summary(self) -> dict[str, int | float | bool]:
        """Return its row of the summary: the worst of counts, the mean of bytes, the longest of times."""
        said = [one for one in self.merged.values() if one.how != "fetched"] or list(self.merged.values())
        return {
            "epoch": self.epoch,
            "stage": self.stage,
            "members": self.members,
            "shards": max(one.shards for one in said),
            "lost_shards": max(one.lost_shards for one in said),
            "faults": max(one.faults for one in said),
            "passed_over": len({peer_id for one in said for peer_id in one.passed_over}),
            "bytes_up": sum(one.bytes_up for one in said) // len(said),
            "bytes_formula": max(one.bytes_formula for one in said),
            "seconds": round(max(one.seconds for one in said), 3),
            "equal": len(self.digests) == 1,
        }


@dataclass(slots=True)
class Merges:
    """All merges that peers told of, in the order in which they were first heard of.

    Attributes:
        named: whom proofs name: epoch, stage, peer id.
        cheats: peers whose word does not count.
    """

    rows: dict[tuple[int, int], StageEpoch] = field(default_factory=dict)
    named: set[tuple[int, int, str]] = field(default_factory=set)
    cheats: set[int] = field(default_factory=set)

    def name(self, epoch: int, stage: int, peer_id: str) -> bool:
        """Note whom a proof names; return whether that is news."""
        key = (epoch, stage, peer_id)
        is_news = key not in self.named
        self.named.add(key)
        return is_news

    def add(self, peer: int, merged: Merged) -> StageEpoch:
        """Take in what a peer says; return the stage and epoch it is about."""
        row = self.rows.setdefault((merged.epoch, merged.stage), StageEpoch(merged.epoch, merged.stage))
        if peer in self.cheats and row.merged:
            return row  # what a cheat says of it is of no use, unless nobody else says anything
        row.merged = {member: said for member, said in row.merged.items() if member not in self.cheats}
        row.merged[peer] = merged
        return row

    @property
    def last(self) -> StageEpoch | None:
        """The last merge of several replicas."""
        recent = list(self.rows.values())[-_KEPT_MATRICES:]
        return next((row for row in reversed(recent) if row.members > 1), None)

    @property
    def num_merged(self) -> int:
        """How many merges had several members."""
        return sum(row.members > 1 for row in self.rows.values())

    @property
    def num_unequal(self) -> int:
        """After how many of them replicas went on with different weights."""
        return sum(len(row.digests) > 1 for row in self.rows.values())
