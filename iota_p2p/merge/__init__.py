"""Replicas of a stage become one model at the end of every epoch (spec: protocols/spec/butterfly.md)."""
