"""Validators: showing evidence, scoring it, agreeing on results, and keeping all of it for audits."""
