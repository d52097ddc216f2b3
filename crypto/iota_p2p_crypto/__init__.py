"""Identities, signed envelopes, canonical bytes, VRF, Merkle log and commitments. Pure: no IO, no clock."""
