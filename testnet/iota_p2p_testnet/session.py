"""One `iota-p2p testnet`, from what its user asked for to the exit code."""

import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from iota_p2p.cli import exit_codes
from iota_p2p.home_lock import lock_home
from iota_p2p.run.run_files import read_spec
from iota_p2p.run.spec import RunSpec
from iota_p2p_crypto.errors import UserError
from iota_p2p_testnet.adversary_plan import plan_adversaries
from iota_p2p_testnet.board import Board
from iota_p2p_testnet.fork_server import start_fork_server
from iota_p2p_testnet.kill_plan import KillPlan, parse_kill
from iota_p2p_testnet.plain_view import PlainView
from iota_p2p_testnet.settling import why_not
from iota_p2p_testnet.summary import write_summary
from iota_p2p_testnet.testnet import Ends, Verdict, View, run_testnet
from iota_p2p_testnet.testnet_home import TestnetHome
from iota_p2p_testnet.wording import loss, payments_in_lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the user asked for; see the help of `iota-p2p testnet` for each."""

    num_peers: int
    num_stages: int | None
    epochs: int | None
    minutes: float | None
    run_file: Path | None
    data: Sequence[str]
    home: Path | None
    kills: Sequence[str]
    adversaries: Sequence[str] = ()
    seed: int
    summary: Path | None
    plain: bool
    settle: bool = True


def hold_session(wishes: Wishes) -> int:
    """Run a testnet to its end and return the exit code.

    Raises:
        UserError: if what was asked for does not fit together, or the home is taken.
    """
    kills = KillPlan([parse_kill(text, wishes.num_peers) for text in wishes.kills], wishes.seed)
    adversaries = plan_adversaries(wishes.adversaries, wishes.num_peers)
    if wishes.summary is not None and not wishes.summary.absolute().parent.is_dir():
        raise UserError(f"there is no folder {wishes.summary.absolute().parent} for the summary")
    board, verdict = Board.of(wishes.num_peers, wishes.num_stages or 0, ""), Verdict()
    with tempfile.TemporaryDirectory(prefix="iota-p2p-testnet-", ignore_cleanup_errors=True) as folder:
        home = TestnetHome(wishes.home or Path(folder, "home"), Path(folder))
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # see `command.testnet`
            with lock_home(home.folder):
                board = _begun(home, wishes)
                for number, adversary in sorted(adversaries.items()):
                    board.turns_bad(number, adversary)
                ends = Ends(epochs=wishes.epochs, minutes=wishes.minutes)
                verdict = trio.run(run_testnet, home, board, kills, ends, _view(wishes))
        except* KeyboardInterrupt:  # before there were peers, who are stopped in good order
            verdict.interrupted = True
        if wishes.summary is not None:
            write_summary(board, wishes.summary)
    return _conclude(board, verdict, wishes.home)


def _begun(home: TestnetHome, wishes: Wishes) -> Board:
    """Start the fork server and prepare the run while it imports; return the board of its peers."""
    _say(f"home     {home.folder}" + ("" if wishes.home else " (temporary: name a --home to keep one)"))
    start_fork_server()
    spec = prepare(home, wishes)
    _say(f"run id   {spec.run_id.hex()}")
    off = why_not(wanted=wishes.settle, has_validators=spec.validation is not None)
    _say(f"settling nothing: {off}" if off else "settling every epoch on a local chain")
    _say(f"starting {wishes.num_peers} peers for {spec.model.num_stages} stages; Ctrl-C stops them")
    board = Board.of(wishes.num_peers, spec.model.num_stages, spec.run_id.hex())
    board.payments.off = off
    return board


def prepare(home: TestnetHome, wishes: Wishes) -> RunSpec:
    """Return the run of this home, made or adopted on the first start."""
    if wishes.run_file is not None and wishes.data:
        raise UserError("use --run or --data, not both: a run has its data")
    spec = home.saved_run()
    if spec is None:
        if wishes.run_file is not None:
            spec = home.adopt(wishes.run_file)
        else:
            _say("packing  the data")
            spec = home.found(wishes.num_stages, wishes.data, wishes.seed)
    elif wishes.data:
        raise UserError(f"{home.folder} has a run with its data already: --data needs a new --home")
    elif wishes.run_file is not None and read_spec(wishes.run_file).run_id != spec.run_id:
        raise UserError(f"{home.folder} has another run than {wishes.run_file}: name a new --home")
    if wishes.num_stages not in (None, spec.model.num_stages):
        raise UserError(f"the run has {spec.model.num_stages} stages: --stages {wishes.num_stages} needs a new --home")
    return spec


def _view(wishes: Wishes) -> View:
    if wishes.plain:
        return PlainView(_say)
    from rich.console import Console  # noqa: PLC0415 - not for lines of text

    from iota_p2p_testnet.live_view import LiveView  # noqa: PLC0415 - the same

    return LiveView(Console())


def _conclude(board: Board, verdict: Verdict, home: Path | None) -> int:
    """Say how it went, and return the exit code."""
    history, totals = board.history, board.totals
    _say(f"trained  {totals.tokens:,} tokens in {history.seconds:.0f} s: {history.tokens_per_s:,.0f} per second")
    for name, span in (("train", history.train_loss), ("held out", history.val_loss)):
        _say(f"{name:<9}{loss(span.first)} -> {loss(span.last)} nats per token")
    for line in payments_in_lines(board, home):
        _say(line)
    if verdict.interrupted:
        return exit_codes.INTERRUPTED
    if verdict.failure is not None:
        print(f"iota-p2p: the testnet failed: {verdict.failure}", file=sys.stderr)  # noqa: T201 - the command's voice
        return exit_codes.FAILURE
    return exit_codes.OK


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the command's own voice
