"""What a settlement on chain is about, as pure values: payout trees, what is signed for the contract, bindings."""
