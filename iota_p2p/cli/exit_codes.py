"""What the command's exit status means; the README lists the same table.

A script can tell whose fault it was: 2 is the user's, 3 is a peer's or a file's author's, 1 is nobody's, 70 is ours.
"""

OK = 0
FAILURE = 1  # nobody's fault: no peer answered, the disk is full, a check of `doctor` failed
USAGE = 2  # the user's: a wrong option, a missing file, a wrong passphrase
INVALID = 3  # somebody signed, sent or changed bytes that break a rule
INTERNAL = 70  # our bug (EX_SOFTWARE of sysexits.h)
INTERRUPTED = 130  # Ctrl-C (128 + SIGINT)
