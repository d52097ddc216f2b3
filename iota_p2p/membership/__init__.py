"""How a peer keeps its view of who is there: it announces itself, watches a few others, and compares views."""
