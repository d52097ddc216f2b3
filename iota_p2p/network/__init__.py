"""The network of a peer: one interface (`host`), a real daemon and a simulated twin behind it."""
