"""What a testnet's validators have said: scores, who was flagged, and results with their payouts. Pure."""

from dataclasses import dataclass, field
from typing import Any

from iota_p2p_testnet.events import Replay, Result, Scores

# Epochs kept: a night's worth at ten seconds each; a summary of more would not be read.
MAX_EPOCHS = 4096


@dataclass(slots=True)
class Scoreboard:
    """A fold over what peers say of scores.

    Attributes:
        records: per epoch and validator's peer id, its scores.
        work: likewise the work that those scores are of.
        flagged: (peer id, epoch) to what pulled it below half, by validator.
        replays: what a validator's replay of a peer's stage showed, by epoch, peer, stage and validator.
        results: the certified results by epoch; all peers say the same.
    """

    records: dict[tuple[int, str], dict[str, int]] = field(default_factory=dict)
    work: dict[tuple[int, str], dict[str, int]] = field(default_factory=dict)
    flagged: dict[tuple[str, int], dict[str, str]] = field(default_factory=dict)
    replays: dict[tuple[int, str, int, str], Replay] = field(default_factory=dict)
    results: dict[int, Result] = field(default_factory=dict)

    def score(self, validator: str, said: Scores) -> None:
        """Take a validator's record."""
        if len(self.records) < MAX_EPOCHS:
            self.records[said.epoch, validator] = said.scores
            self.work[said.epoch, validator] = said.work
            for peer_id, reason in said.flagged.items():
                self.flagged.setdefault((peer_id, said.epoch), {})[validator] = reason

    def replay(self, validator: str, said: Replay) -> bool:
        """Take a replay; return whether it is the first of its work that failed."""
        work = (said.epoch, said.peer, said.stage)
        known = any(key[:3] == work and other.verdict == "failed" for key, other in self.replays.items())
        if len(self.replays) < MAX_EPOCHS:
            self.replays[*work, validator] = said
        return said.verdict == "failed" and not known

    def certify(self, said: Result) -> bool:
        """Take a certified result; return whether it is news."""
        if said.epoch in self.results or len(self.results) >= MAX_EPOCHS:
            return False
        self.results[said.epoch] = said
        return True

    @property
    def silent(self) -> list[tuple[int, str]]:
        """Who published no record of an epoch that it had to score, with the epoch; who was only late did."""
        return [
            (epoch, peer_id)
            for epoch, result in sorted(self.results.items())
            for peer_id in result.silent
            if (epoch, peer_id) not in self.records
        ]

    @property
    def earned(self) -> dict[str, int]:
        """Everybody's payouts over all results."""
        total: dict[str, int] = {}
        for result in self.results.values():
            for peer_id, share in result.payouts.items():
                total[peer_id] = total.get(peer_id, 0) + share
        return total

    @property
    def last(self) -> Result | None:
        """The result of the latest epoch."""
        return self.results[max(self.results)] if self.results else None

    def to_summary(self) -> dict[str, Any]:
        """Return what a summary holds of it."""
        return {
            "scores": [
                {"epoch": epoch, "validator": validator, "peers": scores, "work": self.work[epoch, validator]}
                for (epoch, validator), scores in sorted(self.records.items())
            ],
            "flagged": [
                {"peer": peer_id, "epoch": epoch, "component": reason, "validators": len(reasons)}
                for (peer_id, epoch), reasons in sorted(self.flagged.items(), key=lambda item: item[0][1])
                for reason in sorted(set(reasons.values()))
            ],
            "replays": [
                {
                    "epoch": epoch,
                    "peer": peer_id,
                    "stage": stage,
                    "validator": validator,
                    "verdict": said.verdict,
                    "reason": said.reason,
                }
                for (epoch, peer_id, stage, validator), said in sorted(self.replays.items(), key=lambda item: item[0])
            ],
            "elections": [
                {"epoch": epoch, "validators": sorted(validator for of, validator in self.records if of == epoch)}
                for epoch in sorted({epoch for epoch, _ in self.records})
            ],
            "silent": [{"epoch": epoch, "validator": peer_id} for epoch, peer_id in self.silent],
            "results": [
                {"epoch": epoch, "votes": len(result.validators), "pot": result.pot, "payouts": result.payouts}
                for epoch, result in sorted(self.results.items())
            ],
        }
