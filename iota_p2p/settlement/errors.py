"""What can go wrong between us and a chain, and whose fault it is."""

from iota_p2p_crypto.errors import IotaError, RemoteProtocolError


class ChainError(IotaError):
    """Nobody's fault: the RPC does not answer, the network asks too much, a transaction is not mined in time.

    Nothing is lost: what was journaled goes on with the next call.
    """


class RpcUnavailableError(ChainError):
    """The RPC cannot be reached or answers nonsense."""


class ContractRefusalError(RemoteProtocolError):
    """The contract refused a call; `rule` is the reason it gave (docs/settlement.md lists them)."""
