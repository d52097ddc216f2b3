"""`iota-p2p export`: results in the forms of other networks; only exports, nothing is submitted anywhere."""

import json
from pathlib import Path
from typing import Annotated

import typer

from iota_p2p.cli.chain_access import Paths
from iota_p2p.cli.run_id import parse_run_id
from iota_p2p_crypto.errors import RemoteProtocolError, UserError
from iota_p2p_crypto.identity import PeerId, parse_peer_id

app = typer.Typer(no_args_is_help=True, help="Results in the forms of other networks.", rich_markup_mode=None)

MAX_UID_FILE_BYTES = 1 << 20  # 4096 candidates at some 70 bytes are 300 kB


@app.command(name="bittensor")
def bittensor(
    paths: Paths,
    epoch: Annotated[int, typer.Option("--epoch", metavar="E", min=0, help="Which epoch.")],
    uids: Annotated[
        Path | None, typer.Option("--uids", metavar="FILE", help="A JSON object from peer id to uid.")
    ] = None,
    run_id: Annotated[str | None, typer.Option("--run-id", metavar="HEX", help="Which run.")] = None,
) -> None:
    """Print an epoch's scores as Bittensor's u16 weight vector: round(score / largest * 65535), zeros dropped.

    An export only: nothing is submitted, no chain is asked, and no settlement follows from it.

    \b
    Example:
      iota-p2p export bittensor ./testnet --epoch 3 --uids uids.json
    """
    from iota_p2p.audit.archive import read_archive
    from iota_p2p.audit.dossier import open_dossier
    from iota_p2p.settlement.bittensor_export import weight_vector

    dossier = open_dossier(read_archive(paths), None if run_id is None else parse_run_id(run_id))
    results = {result.digest: result for result in dossier.results.get(epoch, ())}
    if len(results) != 1:
        raise UserError(f"expected one result of epoch {epoch} in these files, found {len(results)}")
    (result,) = results.values()
    vector = weight_vector(result.payload, {} if uids is None else _read_uids(uids))
    document = {
        "kind": "export of scores as bittensor weights; not submitted, settles nothing",
        "run_id": dossier.run_id.hex(),
        "epoch": epoch,
        "result": result.digest.hex(),
        "peers": [one.peer_id for one in vector],
        "uids": [one.uid for one in vector],
        "weights_u16": [one.weight for one in vector],
    }
    typer.echo(json.dumps(document))


def _read_uids(path: Path) -> dict[PeerId, int]:
    try:
        with path.open("rb") as file:
            table = json.loads(file.read(MAX_UID_FILE_BYTES))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"expected a JSON object from peer id to uid in {path}, got something else") from error
    if not isinstance(table, dict) or not all(type(uid) is int and 0 <= uid < 2**16 for uid in table.values()):
        raise UserError(f"expected a JSON object from peer id to uid (0 to 65535) in {path}, got something else")
    try:
        return {parse_peer_id(peer_id): uid for peer_id, uid in table.items()}
    except RemoteProtocolError as error:
        raise UserError(f"{path}: {error}") from error
