"""What a peer's process tells its user: lines for people, or one JSON object per event."""

import json
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Voice:
    """Tells the user what happens: lines for people, or one JSON object per event."""

    as_json: bool

    def say(self, event: str, text: str, **fields: object) -> None:
        """Report one event."""
        line = json.dumps({"event": event, "time_s": round(time.time(), 3), **fields}) if self.as_json else text
        print(line, flush=True)  # noqa: T201 - the command's own voice
