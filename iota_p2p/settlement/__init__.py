"""Payouts on an EVM chain: the contract, its client, and a local chain. All but this line needs the extra."""
