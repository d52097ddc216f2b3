"""Imported once by the fork server, for what it leaves behind: every peer forked afterwards starts with it done.

Importing torch and what trains with it costs seconds. No thread may have been started by the time a peer is forked, so
nothing here computes on more than one, or runs a backward.
"""

import gc

import torch

import iota_p2p.cli.commands
import iota_p2p.cli.peer
import iota_p2p.peer_process
import iota_p2p.training_process  # noqa: F401 - for its effect, as the lines above

torch.set_num_threads(1)
# Otherwise the first collection in a peer would touch, and so copy, every object made above.
gc.collect()
gc.freeze()
