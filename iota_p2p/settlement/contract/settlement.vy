# pragma version 0.4.3
# pragma evm-version cancun
"""
@title Settlement of one run: bonds, payout roots, claims, disputes
@license Apache-2.0
@notice What it defends against, and what not: docs/settlement.md and threats.md beside this file.

Validators hold *seats*, each for one bond of a fixed size. For every epoch a quorum of the seats signs the root of a
tree of payouts and their total. When the dispute window has passed, anybody submits claims against that root; each
pays the account its leaf names. Whoever signs two settlements of one (epoch, round) loses the bond.

Storage words are packed by hand, because every word read or written decides what settling and claiming cost; each
word's fields are listed where it is declared, lowest bits first. Every refusal names its rule in kebab-case.
"""

MAX_SEATS: constant(uint256) = 64  # bounds the loop of settle, and fits a bitmap of signers
MAX_PROOF: constant(uint256) = 32  # levels of a payout tree: four thousand million leaves
MAX_AHEAD: constant(uint256) = 64  # epochs that may be skipped at once: a slip of the pen cannot end the run
HALF_ORDER: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168
LOW_255: constant(uint256) = 2**255 - 1
REWARD_SHARE: constant(uint256) = 10  # who proves an equivocation gets a tenth: less than the liar loses by lying
NEVER: constant(uint256) = 2**48 - 1  # an epoch that does not come

DOMAIN_TYPE: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
SETTLEMENT_TYPE: constant(bytes32) = keccak256(
    "Settlement(bytes32 run,uint256 epoch,uint256 round,bytes32 root,uint256 total)"
)
NAME: constant(bytes32) = keccak256("iota-p2p settlement")
VERSION: constant(bytes32) = keccak256("1")


# An EIP-2098 compact signature: the top bit of vs is the parity of y, the rest is s.
struct Signature:
    r: bytes32
    vs: bytes32


event Funded:
    sender: indexed(address)
    amount: uint256


event Registered:
    validator: indexed(address)
    peer_key: indexed(bytes32)
    seat: uint256
    since: uint256


event Leaving:
    validator: indexed(address)
    until: uint256
    withdraw_at: uint256


event Withdrawn:
    validator: indexed(address)
    amount: uint256


event Settled:
    epoch: indexed(uint256)
    root: bytes32
    total: uint256
    round: uint256
    deadline: uint256
    signers: uint256


event Claimed:
    epoch: indexed(uint256)
    index: indexed(uint256)
    account: indexed(address)
    amount: uint256


event Slashed:
    validator: indexed(address)
    epoch: indexed(uint256)
    reporter: indexed(address)
    reward: uint256


event Voided:
    epoch: indexed(uint256)
    round: uint256
    total: uint256


RUN: public(immutable(bytes32))  # which run this contract settles
BOND: public(immutable(uint256))  # wei per seat
MIN_SEATS: public(immutable(uint256))  # fewer settle nothing: the first to register must not be a quorum alone
DISPUTE_S: public(immutable(uint256))  # seconds from a settlement to its first claim
WITHDRAWAL_S: public(immutable(uint256))  # seconds from leaving to the bond

# pot:112 (free wei) | next:48 (one above the highest settled epoch) | seats:8 | since:48 (first epoch of `seats`)
_treasury: uint256
# since:48 (first epoch) | until:48 (first epoch no more) | seats:8; what the treasury's seats were before
checkpoints: public(HashMap[uint256, uint256])
num_checkpoints: public(uint256)
# held:1 | seat:8 | since:48 | until:48 | withdraw_at:48; zero if not a validator
_validators: HashMap[address, uint256]
_holders: address[MAX_SEATS]
roots: public(HashMap[uint256, bytes32])
# remaining:112 (wei unclaimed) | deadline:48 | quorum:8 | count:8 | round:8 | signers:64 (bitmap of seats)
_epochs: HashMap[uint256, uint256]
# per epoch, a bit for each leaf
_claimed: HashMap[uint256, HashMap[uint256, uint256]]
# per validator, 256 * epoch + round of each proven equivocation: nobody pays twice for one
_proven: HashMap[address, HashMap[uint256, bool]]


@deploy
def __init__(run: bytes32, bond: uint256, min_seats: uint256, dispute_s: uint256, withdrawal_s: uint256):
    assert bond > 0 and bond < 2**104, "bond-range"
    assert min_seats > 0 and min_seats <= MAX_SEATS, "seats-range"
    # Whoever leaves signs until half of this has passed, and can be slashed until its last settlement is final.
    assert withdrawal_s >= 2 * dispute_s and withdrawal_s < 2**40, "delay-range"
    RUN = run
    BOND = bond
    MIN_SEATS = min_seats
    DISPUTE_S = dispute_s
    WITHDRAWAL_S = withdrawal_s


@external
@payable
def fund():
    """@notice Add to the pot that settlements share out."""
    self._add_to_pot(msg.value)
    log Funded(sender=msg.sender, amount=msg.value)


@external
@payable
def register(seat: uint256, peer_key: bytes32):
    """
    @notice Take a free seat for one bond; it counts from the epoch after the next one, or at once before any epoch.
    @param peer_key The Ed25519 key of the validator's peer id; that both belong together is proven off the chain.
    """
    assert seat < MAX_SEATS, "seat-range"
    assert self._holders[seat] == empty(address), "seat-taken"
    assert self._validators[msg.sender] == 0, "registered-already"
    assert msg.value == BOND, "bond-amount"
    since: uint256 = self._change_seats(True)
    self._holders[seat] = msg.sender
    self._validators[msg.sender] = 1 | seat << 1 | since << 9 | NEVER << 57
    log Registered(validator=msg.sender, peer_key=peer_key, seat=seat, since=since)


@external
def leave():
    """@notice Give the seat up from the epoch after the next one; the bond follows after the withdrawal delay."""
    word: uint256 = self._validators[msg.sender]
    assert word != 0, "not-a-validator"
    assert word >> 105 == 0, "left-already"
    until: uint256 = self._change_seats(False)
    withdraw_at: uint256 = block.timestamp + WITHDRAWAL_S
    self._validators[msg.sender] = word & (2**57 - 1) | until << 57 | withdraw_at << 105
    log Leaving(validator=msg.sender, until=until, withdraw_at=withdraw_at)


@external
@nonreentrant
def withdraw():
    """@notice Take the bond back, once the withdrawal delay has passed since leaving."""
    word: uint256 = self._validators[msg.sender]
    assert word != 0, "not-a-validator"
    withdraw_at: uint256 = word >> 105
    assert withdraw_at != 0 and block.timestamp >= withdraw_at, "withdrawal-delay"
    self._forget(msg.sender, word)
    log Withdrawn(validator=msg.sender, amount=BOND)
    self._pay(msg.sender, BOND)


@external
def settle(
    epoch: uint256, root: bytes32, total: uint256, checkpoint: uint256, signatures: DynArray[Signature, MAX_SEATS]
):
    """
    @notice Fix an epoch's payouts, by the signatures of a quorum; anybody may submit them.
    @param root Of the payout tree (see claim).
    @param total Wei that all its leaves add up to at most; taken from the pot.
    @param checkpoint Which checkpoint holds the epoch; looked at only for epochs before the last change of seats.
    """
    assert root != empty(bytes32), "root-empty"
    assert self.roots[epoch] == empty(bytes32), "settled-already"
    treasury: uint256 = self._treasury
    next: uint256 = treasury >> 112 & (2**48 - 1)
    assert epoch < next + MAX_AHEAD, "epoch-ahead"
    pot: uint256 = treasury & (2**112 - 1)
    assert total <= pot, "pot-short"
    seats: uint256 = self._seats_at(epoch, treasury, checkpoint)
    assert seats >= MIN_SEATS, "seats-few"
    quorum: uint256 = 2 * seats // 3 + 1
    # Checked before any of them costs a recovery.
    assert len(signatures) >= quorum, "quorum"
    round: uint256 = self._epochs[epoch] >> 176 & 255
    signers: uint256 = self._signers(self._digest(epoch, round, root, total), epoch, signatures)

    deadline: uint256 = block.timestamp + DISPUTE_S
    self.roots[epoch] = root
    self._epochs[epoch] = total | deadline << 112 | quorum << 160 | len(signatures) << 168 | round << 176 | signers << 184
    self._treasury = treasury >> 160 << 160 | max(next, epoch + 1) << 112 | pot - total
    log Settled(epoch=epoch, root=root, total=total, round=round, deadline=deadline, signers=signers)


@external
@nonreentrant
def claim(epoch: uint256, index: uint256, account: address, amount: uint256, proof: DynArray[bytes32, MAX_PROOF]):
    """
    @notice Pay one leaf of a settled epoch to the account it names; anybody may submit it.
    @dev The tree is RFC 6962's over a power of two of leaves index:32 | account:20 | amount:32, so that the bits of
        the index say on which side each sibling stands, and no node can be passed off as a leaf.
    """
    root: bytes32 = self.roots[epoch]
    assert root != empty(bytes32), "not-settled"
    word: uint256 = self._epochs[epoch]
    assert block.timestamp >= word >> 112 & (2**48 - 1), "dispute-window"
    claimed: uint256 = self._claimed[epoch][index >> 8]
    bit: uint256 = 1 << (index & 255)
    assert claimed & bit == 0, "claimed-already"
    # A proof shorter or longer than the tree is deep ends at another digest; an index beyond it would be paid again.
    assert index >> len(proof) == 0, "leaf-index"
    node: bytes32 = sha256(
        concat(b"\x00", convert(index, bytes32), convert(account, bytes20), convert(amount, bytes32))
    )
    position: uint256 = index
    for sibling: bytes32 in proof:
        if position & 1 == 1:
            node = sha256(concat(b"\x01", sibling, node))
        else:
            node = sha256(concat(b"\x01", node, sibling))
        position >>= 1
    assert node == root, "leaf-proof"
    # Leaves that add up to more than the total take nothing from other epochs.
    assert amount <= word & (2**112 - 1), "total-exceeded"

    self._claimed[epoch][index >> 8] = claimed | bit
    self._epochs[epoch] = word - amount
    log Claimed(epoch=epoch, index=index, account=account, amount=amount)
    self._pay(account, amount)


@external
@nonreentrant
def prove_equivocation(
    epoch: uint256,
    round: uint256,
    root_a: bytes32,
    total_a: uint256,
    signature_a: Signature,
    root_b: bytes32,
    total_b: uint256,
    signature_b: Signature,
):
    """
    @notice Slash a validator by two settlements of one epoch and round that it signed; a tenth goes to the sender.
    @dev If it is among the signers of a settlement still in dispute that thereby loses its quorum, that settlement is
        void: its total returns to the pot, and the epoch can be settled anew, in its next round.
    """
    assert root_a != root_b or total_a != total_b, "same-settlement"
    validator: address = self._recover(self._digest(epoch, round, root_a, total_a), signature_a)
    assert validator == self._recover(self._digest(epoch, round, root_b, total_b), signature_b), "two-signers"
    word: uint256 = self._validators[validator]
    assert self._in_term(word, epoch), "not-a-validator"
    assert round < 256, "round-range"
    assert not self._proven[validator][epoch << 8 | round], "proven-already"

    self._proven[validator][epoch << 8 | round] = True
    if word >> 105 == 0:  # whoever has left was counted out then
        self._change_seats(False)
    self._forget(validator, word)
    reward: uint256 = BOND // REWARD_SHARE
    self._add_to_pot(BOND - reward)
    log Slashed(validator=validator, epoch=epoch, reporter=msg.sender, reward=reward)
    self._strike(epoch, 1 << (word >> 1 & 255))
    self._pay(msg.sender, reward)


@external
@view
def treasury() -> (uint256, uint256, uint256, uint256):
    """@return Free wei, one above the highest settled epoch, seats, and the epoch from which they count."""
    word: uint256 = self._treasury
    return word & (2**112 - 1), word >> 112 & (2**48 - 1), word >> 160 & 255, word >> 168


@external
@view
def validator(account: address) -> (bool, uint256, uint256, uint256, uint256):
    """@return Whether it holds a seat, which, from which epoch, until which (exclusive), when the bond is free."""
    word: uint256 = self._validators[account]
    return word & 1 == 1, word >> 1 & 255, word >> 9 & (2**48 - 1), word >> 57 & (2**48 - 1), word >> 105


@external
@view
def holders() -> address[MAX_SEATS]:
    """@return Who holds each seat, those who left but have not withdrawn among them; zero where it is free."""
    return self._holders


@external
@view
def epoch_state(epoch: uint256) -> (bytes32, uint256, uint256, uint256, uint256):
    """@return The root (zero if not settled), wei unclaimed, when claims begin, round, and the bitmap of signers."""
    word: uint256 = self._epochs[epoch]
    return (
        self.roots[epoch],
        word & (2**112 - 1),
        word >> 112 & (2**48 - 1),
        word >> 176 & 255,
        word >> 184 & (2**64 - 1),
    )


@external
@view
def is_claimed(epoch: uint256, index: uint256) -> bool:
    """@return Whether a leaf has been paid."""
    return self._claimed[epoch][index >> 8] >> (index & 255) & 1 == 1


@external
@view
def settlement_digest(epoch: uint256, round: uint256, root: bytes32, total: uint256) -> bytes32:
    """@return The EIP-712 digest that validators sign."""
    return self._digest(epoch, round, root, total)


@internal
@view
def _digest(epoch: uint256, round: uint256, root: bytes32, total: uint256) -> bytes32:
    # Computed anew each time: on a fork of the chain the same signatures must be worth nothing.
    domain: bytes32 = keccak256(abi_encode(DOMAIN_TYPE, NAME, VERSION, chain.id, self))
    return keccak256(
        concat(b"\x19\x01", domain, keccak256(abi_encode(SETTLEMENT_TYPE, RUN, epoch, round, root, total)))
    )


@internal
@view
def _recover(digest: bytes32, signature: Signature) -> address:
    # Of the two signatures that anybody can make of one, only that with the low s counts.
    vs: uint256 = convert(signature.vs, uint256)
    s: uint256 = vs & LOW_255
    assert s <= HALF_ORDER, "signature-high-s"
    signer: address = ecrecover(digest, 27 + (vs >> 255), convert(signature.r, uint256), s)
    assert signer != empty(address), "signature"
    return signer


@internal
@view
def _signers(digest: bytes32, epoch: uint256, signatures: DynArray[Signature, MAX_SEATS]) -> uint256:
    """Return the bitmap of the signers' seats; each must be in its term, and none may come twice."""
    signers: uint256 = 0
    for signature: Signature in signatures:
        word: uint256 = self._validators[self._recover(digest, signature)]
        assert self._in_term(word, epoch), "not-a-validator"
        withdraw_at: uint256 = word >> 105
        # Its bond must still be here when this settlement's dispute window ends.
        assert withdraw_at == 0 or block.timestamp + DISPUTE_S <= withdraw_at, "validator-leaving"
        bit: uint256 = 1 << (word >> 1 & 255)
        assert signers & bit == 0, "signer-twice"
        signers |= bit
    return signers


@internal
@pure
def _in_term(word: uint256, epoch: uint256) -> bool:
    return word & 1 == 1 and word >> 9 & (2**48 - 1) <= epoch and epoch < word >> 57 & (2**48 - 1)


@internal
@view
def _seats_at(epoch: uint256, treasury: uint256, checkpoint: uint256) -> uint256:
    if epoch >= treasury >> 168:
        return treasury >> 160 & 255
    word: uint256 = self.checkpoints[checkpoint]
    assert word & (2**48 - 1) <= epoch and epoch < word >> 48 & (2**48 - 1), "checkpoint"
    return word >> 96


@internal
def _change_seats(more: bool) -> uint256:
    """Count one seat more or less, from the epoch after the next one; return that epoch."""
    treasury: uint256 = self._treasury
    next: uint256 = treasury >> 112 & (2**48 - 1)
    seats: uint256 = treasury >> 160 & 255
    since: uint256 = treasury >> 168
    # Before the first settlement everybody counts at once: somebody has to begin.
    start: uint256 = 0 if next == 0 else next + 1
    if start > since:
        self.checkpoints[self.num_checkpoints] = since | start << 48 | seats << 96
        self.num_checkpoints += 1
    seats = seats + 1 if more else seats - 1
    self._treasury = treasury & (2**160 - 1) | seats << 160 | start << 168
    return start


@internal
def _add_to_pot(amount: uint256):
    treasury: uint256 = self._treasury
    assert (treasury & (2**112 - 1)) + amount < 2**112, "pot-range"
    self._treasury = treasury + amount


@internal
def _forget(validator: address, word: uint256):
    self._validators[validator] = 0
    self._holders[word >> 1 & 255] = empty(address)


@internal
def _strike(epoch: uint256, bit: uint256):
    """Take a signer off a settlement in dispute; without a quorum left it is void."""
    word: uint256 = self._epochs[epoch]
    if word >> 184 & bit == 0 or block.timestamp >= word >> 112 & (2**48 - 1):
        return
    word -= bit << 184 | 1 << 168
    if word >> 168 & 255 >= word >> 160 & 255:
        self._epochs[epoch] = word
        return
    # Nothing of it can have been claimed: claims begin when the window ends.
    total: uint256 = word & (2**112 - 1)
    round: uint256 = word >> 176 & 255
    assert round < 255, "round-range"
    self.roots[epoch] = empty(bytes32)
    self._epochs[epoch] = (round + 1) << 176
    self._add_to_pot(total)
    log Voided(epoch=epoch, round=round, total=total)


@internal
def _pay(account: address, amount: uint256):
    raw_call(account, b"", value=amount)
