"""Imported once by the fork server, for what it leaves behind: every peer forked afterwards starts with it done.

Importing torch costs seconds, and the first optimizer as much again (it imports torch._dynamo). No thread may have
been started by the time a peer is forked, so nothing here computes on more than one, or runs a backward.
"""

import gc

import torch

import iota_p2p.cli.main
import iota_p2p.peer_process  # noqa: F401 - for its effect, as the line above

torch.set_num_threads(1)
torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
# Otherwise the first collection in a peer would touch, and so copy, every object made above.
gc.collect()
gc.freeze()
