#!/usr/bin/env python3
"""A model of how the warps of the Hopper kernel hand tiles, votes and visits over.

usage: hopper_model.py [--schedules N] [--seed S]

backends/cuda/hopper/ has the kernel: producer.cuh, recorder.cuh and consumer.cuh are what the
actors here do, step by step, under the same names. The constants are read from its headers.

What is modelled: one thread block, with a few work items, or many small ones, some of no visits
at all. Each warp is a generator, an actor, that stops wherever another warp may come between: at a
plain step, at a wait for a phase of an mbarrier, at a named barrier. (Lanes that bring Q wait apart
and are actors each.) Tiles land in pieces, each after a delay of its own. A scheduler runs all of
them at random: some equally fast, some thousands of times slower, some frozen until nobody else can
go on. mbarriers know phases by parity alone, as they do on the card, while the model also knows
which phase a wait means. Visits n are counted over all items.

What is not: memory is sequentially consistent, lanes of a warp move together, decisions are
random, nothing is computed. So it finds missing waits, not missing fences.

What is checked: no deadlock; no wait that passes by another phase than the one meant, or misses
its own; no tile, work item, visit entry, vote word or exchange slot written over while somebody
needs it, or read before it is there; every kept visit reads its own V tile; what is recorded is
what was decided; all roles leave all items, with nothing on its way at the end. Then the model
itself is checked: what breaks the protocol must be caught.

A failure names its seed: --schedules 1 --seed THAT runs it again. Long runs use other seeds than
the default's.
"""

import argparse
import dataclasses
import enum
import functools
import heapq
import itertools
import pathlib
import random
import re
import sys

HOPPER = pathlib.Path(__file__).resolve().parents[2] / "backends" / "cuda" / "hopper"
WARPS = 4  # of a warpgroup
MOST_VISITS = 60  # of all work items together
MOST_ITEMS = 5
LONG_BLOCK = 300  # visits, now and then: entries of visits come round again
MANY_ITEMS = 16  # now and then, of no more visits than
TINY = 3
PIECES = 4  # that a tile lands in
KEPT = 256  # in a vote word, shifted by the warpgroup; below it is how many skip


class ProtocolError(Exception):
    """The warps did what they must never do."""


# ---- What runs ----------------------------------------------------------------------------------


def read_constants():
    """Those of the headers that the protocol depends on, by name."""
    headers = ("params.h", "layout.cuh", "consumer.cuh")
    text = "".join((HOPPER / name).read_text("utf-8") for name in headers)
    constants = {}
    for name in ("SLOTS", "GATE_VISITS", "VISITS_AT_ONCE", "VISITS_KNOWN", "HOPPER_K_STAGES",
                 "HOPPER_V_STAGES", "ITEMS_KNOWN", "long_walk"):
        found = re.search(rf"\b{name} = ([^,;}}/]+)", text)
        if not found:
            sys.exit(f"hopper_model.py: no {name} in the headers of {HOPPER}")
        value = 1
        for factor in found[1].split("*"):
            factor = factor.strip()
            value *= int(factor) if factor.isdigit() else constants[factor]
        constants[name] = value
    return constants


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What the warps do. What has a default does what the kernel does, unless it is broken."""

    slots: int
    gate_visits: int
    visits_at_once: int
    visits_known: int
    k_stages: int
    v_stages: int
    items_known: int
    long_walk: int
    recall_slots: int
    items_awaited: bool = True  # the K producer waits for item_taken
    first_entries_before_item: bool = True  # it writes them before it announces the item
    recorder_leaves: bool = True  # and is waited for
    item_read_before_taken: bool = True  # the consumers have read it the last time
    q_place_awaited: bool = True  # the Q producer waits for q_empty
    scores_before_q_empty: bool = True
    idle_q_empty_after_sync: bool = True  # of an item without visits: all warps have seen q_full
    again_looks_ahead: bool = True  # going by maxima again, as an item's first visit does at once
    gate: bool = True
    recorder_follows_v: bool = True  # opens the gate when the V producer did so the time before
    gate_after_waits: bool = True  # the V producer opens it after its waits, not before
    vote_before_done: bool = True
    votes_zeroed: bool = True
    vain_tiles_awaited: bool = True  # the V producer waits for v_ready of the visit before in place
    v_place_awaited: bool = True  # and for done
    v_ready_when_skipped: bool = True
    v_awaited_at_end: bool = True
    v_read_before_done: bool = True
    scores_before_k_empty: bool = True
    exchange_slots: int = 2
    sync_before_weighing_again: bool = True


def kernel_protocol():
    c = read_constants()
    return Protocol(c["SLOTS"], c["GATE_VISITS"], c["VISITS_AT_ONCE"], c["VISITS_KNOWN"],
                    c["HOPPER_K_STAGES"], c["HOPPER_V_STAGES"], c["ITEMS_KNOWN"],
                    c["long_walk"], recall_slots=c["ITEMS_KNOWN"])


class Mode(enum.Enum):
    """As the kernel's walk_mode; measured votes wait where votes do. SEEN: dense of a varied
    kernel, where warpgroups pass over what they do not see."""

    DENSE = "dense"
    SEEN = "dense of what is seen"
    VOTES = "votes"
    ESTIMATED = "estimated"
    EXACT = "exact"

    @property
    def dense(self):
        """Nobody votes, and V tiles are always loaded."""
        return self in (Mode.DENSE, Mode.SEEN)


# ---- Barriers -----------------------------------------------------------------------------------


class Barrier:
    """An mbarrier: a phase is over when all have arrived and all expected pieces have landed."""

    def __init__(self, name, arrivals):
        self.name = name
        self.arrivals = arrivals
        self.missing = arrivals
        self.pieces = 0  # expected, in this phase
        self.phases_over = 0
        self.waiting = {}  # the phase that an actor means

    def arrive(self, pieces=0):
        if self.missing == 0:
            raise ProtocolError(f"an arrival too many at {self.name}")
        self.missing -= 1
        self.pieces += pieces
        self.end_phase_if_complete()

    def land_piece(self):
        self.pieces -= 1
        self.end_phase_if_complete()

    def end_phase_if_complete(self):
        if self.missing > 0 or self.pieces > 0:
            return
        self.phases_over += 1
        self.missing = self.arrivals
        for actor, phase in self.waiting.items():
            if self.lets_pass(actor, phase):
                actor.schedule()

    def lets_pass(self, actor, phase):
        """By parity, as the card does it; wrong if that is not the phase meant."""
        passes = self.phases_over % 2 != phase % 2
        if passes and self.phases_over != phase + 1:
            raise ProtocolError(f"{actor.name} means phase {phase} of {self.name} and passes "
                                f"when {self.phases_over} are over")
        if not passes and self.phases_over > phase:
            raise ProtocolError(f"{actor.name} misses phase {phase} of {self.name}, "
                                f"{self.phases_over} are over")
        return passes


class Wait:
    """What an actor yields to wait for a phase of a barrier."""

    def __init__(self, barrier, phase):
        self.barrier = barrier
        self.phase = phase

    def __str__(self):
        return f"phase {self.phase} of {self.barrier.name}"

    def begin(self, actor):
        self.barrier.waiting[actor] = self.phase
        if self.barrier.lets_pass(actor, self.phase):
            actor.schedule()

    def end(self, actor):
        del self.barrier.waiting[actor]


class NamedBarrier:
    """What an actor yields to go on when as many as belong to it have come."""

    def __init__(self, name, warps):
        self.name = name
        self.warps = warps
        self.present = []

    def __str__(self):
        return self.name

    def begin(self, actor):
        self.present.append(actor)
        if len(self.present) == self.warps:
            everybody, self.present = self.present, []
            for one in everybody:
                one.schedule()

    def end(self, actor):
        pass


# ---- Scheduler ----------------------------------------------------------------------------------


class Party:
    """Whoever has a speed: an actor, or what brings tiles."""

    def __init__(self, name):
        self.name = name
        self.slowness = 1.0  # the longest that a step takes


class Actor(Party):
    """A warp."""

    def __init__(self, name, generator, scheduler):
        super().__init__(name)
        self.generator = generator
        self.scheduler = scheduler
        self.request = None  # what it waits for

    def schedule(self):
        self.scheduler.later(self, self.resume)

    def resume(self):
        if self.request is not None:
            self.request.end(self)
        try:
            self.request = next(self.generator)
        except StopIteration:
            self.scheduler.unfinished.remove(self)
            return
        if self.request is None:
            self.schedule()
        else:
            self.request.begin(self)


class Scheduler:
    """Takes one step of one party after the other, in the order of random times."""

    FROZEN = 1e7  # slowness: everybody else comes to a standstill before

    def __init__(self, chance, often_frozen):
        self.chance = chance
        self.often_frozen = often_frozen  # the name of a party, or None: random ones
        self.now = 0.0
        self.scheduled = 0
        self.events = []  # a heap of (time, number, party, what it does)
        self.q_tiles, self.k_tiles, self.v_tiles = (Party(f"{name} tiles") for name in "QKV")
        self.copies = 0  # on their way
        self.actors = []
        self.unfinished = set()
        shortest = 300 if often_frozen else 20
        self.stretch = shortest << chance.randrange(8)  # steps between changes of speed

    def add_actor(self, name, generator):
        actor = Actor(name, generator, self)
        self.actors.append(actor)
        self.unfinished.add(actor)

    def later(self, party, action):
        time = self.now + self.chance.random() * party.slowness
        self.scheduled += 1
        heapq.heappush(self.events, (time, self.scheduled, party, action))

    def copy(self, tiles, land):
        self.copies += 1
        self.later(tiles, functools.partial(self.finish_copy, land))

    def finish_copy(self, land):
        self.copies -= 1
        land()

    def run(self):
        for actor in self.actors:
            actor.schedule()
        steps = 0
        while self.unfinished and self.events:
            if steps % self.stretch == 0:
                self.change_speeds()
            steps += 1
            self.now, _, _, action = heapq.heappop(self.events)
            action()
        if self.unfinished:
            raise ProtocolError("deadlock: " + self.who_waits())
        if self.copies:
            raise ProtocolError("the block ends while a tile is on its way")

    def who_waits(self):
        at = {}
        for actor in self.actors:
            if actor in self.unfinished:
                at.setdefault(str(actor.request), []).append(actor.name)
        return "; ".join(", ".join(names) + f" at {what}" for what, names in at.items())

    def change_speeds(self):
        parties = [*self.actors, self.q_tiles, self.k_tiles, self.v_tiles]
        for party in parties:
            party.slowness = 1.0
        if self.often_frozen:
            self.freeze_often(parties)
        else:
            manner = self.chance.choice(
                (self.all_alike, self.all_different, self.some_frozen, self.two_frozen))
            manner(parties)
        pending, self.events = self.events, []
        for _, _, party, action in pending:
            self.later(party, action)

    def all_alike(self, parties):
        pass

    def all_different(self, parties):
        for party in parties:
            party.slowness = 2.0 ** (14 * self.chance.random())

    def some_frozen(self, parties):
        for party in parties:
            if self.chance.random() < 0.25:
                party.slowness = self.FROZEN

    def two_frozen(self, parties):
        for party in self.chance.choices(parties, k=2):  # or one, if twice the same
            party.slowness = self.FROZEN

    def freeze_often(self, parties):
        if self.chance.random() < 0.5:
            for party in parties:
                if party.name == self.often_frozen:
                    party.slowness = self.FROZEN


# ---- What the warps share -----------------------------------------------------------------------


class TilePlace:
    """A place in shared memory for a tile of K or V, by visit, or of Q, by work item."""

    def __init__(self, name, scheduler, tiles, subject="visit"):
        self.name = name
        self.scheduler = scheduler
        self.tiles = tiles  # the party that brings them
        self.subject = subject
        self.owner = None  # the number of the one whose tile is there, all of it
        self.readers = 0
        self.missing_pieces = 0

    def load(self, owner, barrier):
        if self.missing_pieces:
            raise ProtocolError(f"{self.name} is loaded for {self.subject} {owner}, and not there "
                                "yet")
        self.refuse_readers(owner)
        self.owner = None
        self.missing_pieces = PIECES
        barrier.arrive(PIECES)
        for _ in range(PIECES):
            self.scheduler.copy(self.tiles, functools.partial(self.land_piece, owner, barrier))

    def land_piece(self, owner, barrier):
        self.refuse_readers(owner)
        self.missing_pieces -= 1
        if self.missing_pieces == 0:
            self.owner = owner
        barrier.land_piece()

    def refuse_readers(self, owner):
        if self.readers:
            raise ProtocolError(f"{self.name} is written for {self.subject} {owner} while it is "
                                "read")

    def begin_read(self, owner):
        self.readers += 1
        self.expect(owner)

    def end_read(self, owner):
        self.readers -= 1
        self.expect(owner)

    def expect(self, owner):
        if self.owner != owner:
            raise ProtocolError(f"{self.subject} {owner} reads {self.name}, which has that of "
                                f"{self.owner}")


class VoteWord:
    """How many warpgroups skip a visit, and which keep it."""

    def __init__(self, visit):
        self.visit = visit  # that the word is for: the model knows, the kernel does not
        self.votes = 0

    def add(self, visit, vote):
        self.expect(visit)
        before = self.votes
        self.votes += vote
        return before

    def expect(self, visit):
        if self.visit != visit:
            raise ProtocolError(f"votes on visit {visit} in the word of visit {self.visit}")


class ExchangeSlot:
    """Where each warp of a warpgroup puts its sum, for others to read."""

    def __init__(self, subjects):
        self.subjects = subjects  # what sums are of
        self.told = [None] * WARPS

    def expect(self, subject):
        if self.told != [subject] * WARPS:
            raise ProtocolError(f"sums of {self.subjects} {subject} read where {self.told} are")


class Decisions:
    """Random: which visits each warpgroup keeps, and which it weighs again. firsts: those that
    begin a work item, which go by maxima at once. All keep them but, in varied kernels, warpgroups
    that see nothing of them."""

    def __init__(self, chance, mode, groups, visits, firsts, mostly_skips):
        densities = (0, 0.02, 0.1) if mostly_skips else (0, 0.02, 0.1, 0.3, 0.5, 0.8, 0.95, 1)
        self.chance = chance
        self.firsts = firsts
        self.density = chance.choice(densities)
        self.again_share = chance.choice((0, 0.05, 0.3))
        self.in_runs = chance.random() < 0.5
        self.alike = chance.random() < 0.5
        self.keep = [[True] * visits for _ in range(groups)]
        self.again = [[n in firsts or chance.random() < self.again_share for n in range(visits)]
                      for _ in range(groups)]
        if mode is not Mode.DENSE:
            for group in range(groups):
                self.decide(group, visits)
            if mode is Mode.SEEN or chance.random() < 0.5:
                self.pass_over(groups, range(visits) if mode is Mode.SEEN else sorted(firsts))

    def pass_over(self, groups, visits):
        """The last warpgroup that has rows sees all of a work item's visits."""
        keeper = 0
        for n in visits:
            if n in self.firsts:
                keeper = self.chance.randrange(groups)
                for group in range(groups):
                    self.keep[group][n] = self.chance.random() < 0.5
            self.keep[keeper][n] = True

    def decide(self, group, visits):
        for n in range(visits):
            if n in self.firsts:
                continue
            keep = self.chance.random() < self.density
            if self.in_runs and n - 1 not in self.firsts and self.chance.random() < 0.7:
                keep = self.keep[group][n - 1]
            if self.alike and group > 0 and self.chance.random() < 0.8:
                keep = self.keep[0][n]
            self.keep[group][n] = keep

    def anybody_keeps(self, n):
        return any(keep[n] for keep in self.keep)

    def votes(self, n):
        return sum(KEPT << group if keep[n] else 1 for group, keep in enumerate(self.keep))


class Block:
    """A thread block: what its warps share, and the warps. items: how many visits each has."""

    def __init__(self, protocol, mode, groups, items, decisions, scheduler):
        self.protocol, self.mode, self.decisions = protocol, mode, decisions
        self.groups, self.items, self.scheduler = groups, items, scheduler
        self.item_of = [i for i, visits in enumerate(items) for _ in range(visits)]
        self.visits = len(self.item_of)
        self.make_barriers()
        self.make_places()
        self.recorded = []
        self.visits_read = 0  # V tiles, by warps
        self.add_warps()

    def make_barriers(self):
        def several(name, count, arrivals):
            return [Barrier(f"{name}[{i}]", arrivals) for i in range(count)]

        p = self.protocol
        roles = self.groups + (3 if p.recorder_leaves else 2)
        self.item_ready = several("item_ready", p.items_known, 1)
        self.item_taken = several("item_taken", p.items_known, roles)
        self.q_full = several("q_full", self.groups, 1)
        self.q_empty = several("q_empty", self.groups, 1)
        self.k_full = several("k_full", p.k_stages, 1)
        self.k_empty = several("k_empty", p.k_stages, self.groups)
        self.wanted = several("wanted", p.slots, 1)
        self.done = several("done", p.slots, WARPS * self.groups)
        self.v_ready = several("v_ready", p.slots, 1)
        self.gate = Barrier("gate", 2)
        self.consumers_barrier = NamedBarrier("the barrier of all consumers", WARPS * self.groups)
        self.group_barriers = [NamedBarrier(f"the barrier of warpgroup {g}", WARPS)
                               for g in range(self.groups)]
        self.q_lanes = NamedBarrier("where lanes of the Q producer meet", self.groups)

    def make_places(self):
        def several(name, count, tiles, subject="visit"):
            return [TilePlace(f"{name} place {i}", self.scheduler, tiles, subject)
                    for i in range(count)]

        def exchange(subjects, slots):
            return [[ExchangeSlot(subjects) for _ in range(slots)] for _ in range(self.groups)]

        p = self.protocol
        self.item = [None] * p.items_known
        self.q = several("Q", self.groups, self.scheduler.q_tiles, "work item")
        self.k = several("K", p.k_stages, self.scheduler.k_tiles)
        self.v = several("V", p.v_stages, self.scheduler.v_tiles)
        self.entries = [None] * p.visits_known
        self.votes = [VoteWord(i) for i in range(p.slots)]
        self.exchange = exchange("(visit, turn)", p.exchange_slots)
        self.recall = exchange("work item", p.recall_slots)

    def add_warps(self):
        add = self.scheduler.add_actor
        add("the K producer", KeyProducer(self).run())
        add("the V producer", ValueProducer(self).run())
        add("the recorder", Recorder(self).run())
        # The kernel's need not, but a wait instead of its polling would make them.
        lanes_wait_together = self.scheduler.chance.random() < 0.5
        for lane in range(self.groups):
            add(f"lane {lane} of the Q producer",
                QueryProducer(self, lane, lanes_wait_together).run())
        for group in range(self.groups):
            for warp in range(WARPS):
                add(f"consumer {group}.{warp}", Consumer(self, group, warp).run())

    @property
    def gated(self):
        return not self.mode.dense and self.protocol.gate

    def of_visit(self, barriers, n):
        return barriers[n % self.protocol.slots]

    def wait_for_visit(self, barriers, n):
        return Wait(self.of_visit(barriers, n), n // self.protocol.slots)

    def vote_word(self, n):
        return self.votes[n % self.protocol.slots]

    def write_entry(self, i, n):
        """Of work item i, unless that ends before."""
        self.entries[n % self.protocol.visits_known] = (i, n)

    def read_entry(self, n):
        entry = self.entries[n % self.protocol.visits_known]
        if entry != (self.item_of[n], n):
            raise ProtocolError(f"the entry of visit {n} of work item {self.item_of[n]} is that of "
                                f"(item, visit) {entry}")

    def read_item(self, i):
        item = self.item[i % self.protocol.items_known]
        if item != i:
            raise ProtocolError(f"work item {i} is read where {item} is")

    def take_item(self, i):
        """How many visits it has, or None: no more work; returned by the generator."""
        known = self.protocol.items_known
        yield Wait(self.item_ready[i % known], i // known)
        self.read_item(i)
        yield
        return self.items[i] if i < len(self.items) else None

    def leave_item(self, i):
        self.item_taken[i % self.protocol.items_known].arrive()
        yield

    def run(self):
        self.scheduler.run()
        if self.mode.dense:
            decided = []
        else:
            decided = [self.decisions.votes(n) for n in range(self.visits)]
        if self.recorded != decided:
            raise ProtocolError("what was recorded is not what was decided")
        if any(word.votes for word in self.votes):
            raise ProtocolError("votes are left at the end")
        if self.visits_read != WARPS * sum(sum(keep) for keep in self.decisions.keep):
            raise ProtocolError("kept visits and V tiles read do not agree")
        if sum(taken.phases_over for taken in self.item_taken) != len(self.items):
            raise ProtocolError("not all roles have left all work items")


# ---- Producers: producer.cuh --------------------------------------------------------------------


class KeyProducer:
    """Tells what work there is, reads the lists, and keeps the ring of K tiles filled."""

    def __init__(self, block):
        self.block = block

    def announce(self, i):
        """To all roles, when all are through with the one before the last."""
        block, known = self.block, self.block.protocol.items_known
        if block.protocol.items_awaited:
            yield Wait(block.item_taken[i % known], i // known - 1)
        block.item[i % known] = None  # as long as it is half written
        yield
        block.item[i % known] = i
        block.item_ready[i % known].arrive()
        yield

    def read_list(self, i, first):
        for n in range(first, first + self.block.protocol.visits_at_once):
            self.block.write_entry(i, n)
            if n % 8 == 7:  # lanes write together, but not all at the same time
                yield

    def load_keys(self, i, first):
        block, protocol = self.block, self.block.protocol
        for n in range(first, first + block.items[i]):
            if (n - first) % protocol.visits_at_once == protocol.visits_at_once // 2:
                yield from self.read_list(i, n + protocol.visits_at_once // 2)
            if block.gated and n % protocol.gate_visits == 0 and n >= protocol.slots:
                # The first opening lets visit 2 * gate_visits go on.
                yield Wait(block.gate, n // protocol.gate_visits - 2)
            turn, stage = divmod(n, protocol.k_stages)
            yield Wait(block.k_empty[stage], turn - 1)
            block.read_entry(n)
            block.k[stage].load(n, block.k_full[stage])
            yield

    def run(self):
        block, protocol = self.block, self.block.protocol
        n = 0
        yield
        for i, visits in enumerate(block.items):
            if protocol.first_entries_before_item:
                yield from self.read_list(i, n)
            yield from self.announce(i)
            if not protocol.first_entries_before_item:
                yield from self.read_list(i, n)
            yield from self.load_keys(i, n)
            n += visits
        yield from self.announce(len(block.items))  # that there is no more


class QueryProducer:
    """A lane, which brings a warpgroup's rows when those before are through with their scores."""

    def __init__(self, block, lane, lanes_wait_together):
        self.block, self.lane = block, lane
        self.lanes_wait_together = lanes_wait_together

    def load_rows(self, i):
        block = self.block
        if block.protocol.q_place_awaited:
            yield Wait(block.q_empty[self.lane], i - 1)
        if self.lanes_wait_together:
            yield block.q_lanes
        block.q[self.lane].load(i, block.q_full[self.lane])
        yield

    def run(self):
        block = self.block
        for i in itertools.count():
            if (yield from block.take_item(i)) is None:
                return
            yield from self.load_rows(i)
            yield block.q_lanes
            if self.lane == 0:
                yield from block.leave_item(i)


class ValueProducer:
    """Loads the V tile of a visit when somebody keeps it, or ahead if the one before was kept."""

    def __init__(self, block):
        self.block = block

    def load(self, n):
        block, protocol = self.block, self.block.protocol
        if n >= protocol.v_stages and protocol.v_place_awaited:
            yield block.wait_for_visit(block.done, n - protocol.v_stages)
        block.read_entry(n)
        block.v[n % protocol.v_stages].load(n, block.of_visit(block.v_ready, n))
        yield

    def is_wanted(self, n):
        """What the votes say; returned by the generator."""
        yield self.block.wait_for_visit(self.block.wanted, n)
        kept = self.block.vote_word(n).votes >= KEPT
        yield
        return kept

    def open_gate(self, n):
        block, visits = self.block, self.block.protocol.gate_visits
        if block.gated and n % visits == 1 and n > visits:
            block.gate.arrive()
        yield

    def visit_loaded_ahead(self, n):
        yield from self.load(n)
        if self.block.protocol.gate_after_waits:
            yield from self.open_gate(n)
        if self.block.mode.dense:
            return True
        # All may be through with it and the votes gone, so that this may be wrong: then the next
        # tile is not loaded ahead, no more.
        return (yield from self.is_wanted(n))

    def visit_loaded_if_wanted(self, n):
        block = self.block
        kept = yield from self.is_wanted(n)
        if kept != block.decisions.anybody_keeps(n):
            raise ProtocolError(f"the V producer misreads the votes on visit {n}")
        if kept:
            yield from self.load(n)
        elif block.protocol.v_ready_when_skipped:
            block.of_visit(block.v_ready, n).arrive()
        yield
        if block.protocol.gate_after_waits:
            yield from self.open_gate(n)
        return kept

    def visit(self, n, kept):
        """kept: somebody keeps the visit before; then, returned by the generator, visit n."""
        block, protocol = self.block, self.block.protocol
        sparse = not block.mode.dense
        if sparse and n >= protocol.v_stages and protocol.vain_tiles_awaited:
            yield block.wait_for_visit(block.v_ready, n - protocol.v_stages)
        if not protocol.gate_after_waits:
            yield from self.open_gate(n)
        if kept:
            return (yield from self.visit_loaded_ahead(n))
        return (yield from self.visit_loaded_if_wanted(n))

    def run(self):
        block, protocol = self.block, self.block.protocol
        n = 0
        for i in itertools.count():
            visits = yield from block.take_item(i)
            if visits is None:
                break
            kept = True  # the first visit will be
            for _ in range(visits):
                kept = yield from self.visit(n, kept)
                n += 1
            yield from block.leave_item(i)
        if protocol.v_awaited_at_end:
            for last in range(max(0, n - protocol.v_stages), n):
                yield block.wait_for_visit(block.v_ready, last)


# ---- Recorder: recorder.cuh ---------------------------------------------------------------------


class Recorder:
    """Writes down votes, once everybody is through with a visit, and clears them."""

    def __init__(self, block):
        self.block = block

    def take_votes(self, n):
        block, protocol = self.block, self.block.protocol
        yield block.wait_for_visit(block.done, n)
        word = block.vote_word(n)
        word.expect(n)
        block.recorded.append(word.votes)
        yield
        if protocol.votes_zeroed:
            word.votes = 0
        word.visit = n + protocol.slots
        yield
        if block.gated and n % protocol.gate_visits == protocol.gate_visits - 1:
            yield from self.open_gate(n)

    def open_gate(self, n):
        block, protocol = self.block, self.block.protocol
        if n > protocol.gate_visits and protocol.recorder_follows_v:
            yield block.wait_for_visit(block.v_ready, n - 1)
            if protocol.gate_after_waits:
                yield Wait(block.gate, n // protocol.gate_visits - 1)  # over, whoever waits for it
        block.gate.arrive()
        yield

    def record(self, first, end):
        batch = range(first, end)
        for n in batch:
            yield from self.take_votes(n)
        for n in batch:
            self.block.read_entry(n)
        yield

    def run(self):
        block = self.block
        n = 0
        for i in itertools.count():
            visits = yield from block.take_item(i)
            if visits is None:
                return
            yield  # clears what it writes
            if not block.mode.dense:
                for first in range(n, n + visits, 32):
                    yield from self.record(first, min(first + 32, n + visits))
            if block.protocol.recorder_leaves:
                yield from block.leave_item(i)
            n += visits


# ---- Consumers: consumer.cuh --------------------------------------------------------------------


class Consumer:
    """One warp of a warpgroup. The first one speaks for the warpgroup."""

    def __init__(self, block, group, warp):
        self.block, self.protocol = block, block.protocol
        self.group, self.warp = group, warp
        self.sync = block.group_barriers[group]
        self.keep = block.decisions.keep[group]
        self.weigh_again = block.decisions.again[group]
        self.name = f"warp {warp} of warpgroup {group}"
        self.visits = 0  # of the work item, still to come
        self.keys_ready = False  # of the next visit

    def publish(self, n):
        """The first to keep a visit, or the last to skip it, calls for V."""
        if self.warp != 0:
            return
        keep = self.keep[n]
        before = self.block.vote_word(n).add(n, KEPT << self.group if keep else 1)
        yield
        if before < KEPT and (keep or before == self.block.groups - 1):
            self.block.of_visit(self.block.wanted, n).arrive()
            yield

    def say_done(self, n):
        self.block.of_visit(self.block.done, n).arrive()
        yield

    def end_visit(self, n):
        if self.keep[n]:
            if self.protocol.v_read_before_done:
                yield from self.say_done(n)
        elif self.block.mode is Mode.SEEN:
            yield from self.say_done(n)
        elif self.protocol.vote_before_done:
            yield from self.publish(n)
            yield from self.say_done(n)
        else:
            yield from self.say_done(n)
            yield from self.publish(n)

    def release_keys(self, n, early=False):
        """After a barrier of the warpgroup since the scores were computed; early is wrong."""
        if self.warp != 0:
            return
        if early != self.protocol.scores_before_k_empty:
            self.block.k_empty[n % self.protocol.k_stages].arrive()
            yield
        if self.visits == 1 and early != self.protocol.scores_before_q_empty:
            yield from self.release_rows()

    def release_rows(self):
        if self.warp == 0:
            self.block.q_empty[self.group].arrive()
            yield

    def look_ahead(self, n):
        """Whether the keys of the next visit are there, be it of the next work item. Nobody brings
        any after the last one's."""
        turn, stage = divmod(n + 1, self.protocol.k_stages)
        self.keys_ready = self.block.k_full[stage].lets_pass(self, turn)
        yield

    def await_keys(self, n):
        turn, stage = divmod(n, self.protocol.k_stages)
        if not self.keys_ready:
            yield Wait(self.block.k_full[stage], turn)

    def compute_scores(self, i, n, ends, first_turn):
        """What follows from the visit before, if that ends, is done meanwhile."""
        rows, keys = self.block.q[self.group], self.block.k[n % self.protocol.k_stages]
        rows.begin_read(i)
        keys.begin_read(n)
        yield
        if ends:
            yield from self.end_visit(n - 1)
        self.block.read_entry(n)
        if first_turn:
            yield from self.release_keys(n, early=True)
        keys.end_read(n)
        rows.end_read(i)
        yield

    def judge(self, n, again):
        """Warps tell each other their sums, and read those of all."""
        slots = self.block.exchange[self.group]
        slot = slots[n % len(slots)]
        slot.told[self.warp] = (n, again)
        yield
        self.block.read_entry(n)  # its budget
        yield from self.look_ahead(n)
        yield self.sync
        slot.expect((n, again))
        yield

    def visit_exact(self, n, again):
        """Whether to weigh it again; returned by the generator, as in the next one."""
        yield from self.judge(n, again)
        if again:
            yield self.sync  # offsets are settled
            return False
        if self.weigh_again[n] and self.protocol.sync_before_weighing_again:
            yield self.sync  # all have read the answer
        return self.weigh_again[n]

    def visit_by_maxima(self, n, again):
        mode = self.block.mode
        if mode is Mode.VOTES and not again:
            yield from self.look_ahead(n)
            yield self.sync  # tells whether all rows vote alike
        if mode is Mode.ESTIMATED and not again:
            yield from self.judge(n, again)
        looks_ahead = mode.dense or (again and self.protocol.again_looks_ahead)
        if not self.keep[n]:
            if looks_ahead:  # it passes, without having asked
                yield from self.look_ahead(n)
                yield self.sync
            return False
        if looks_ahead:
            yield from self.look_ahead(n)
        yield self.sync  # tells whether weights fit
        return self.weigh_again[n] and not again

    def read_values(self, n):
        block = self.block
        yield block.wait_for_visit(block.v_ready, n)
        place = block.v[n % self.protocol.v_stages]
        place.begin_read(n)
        block.visits_read += 1
        yield
        if not self.protocol.v_read_before_done:
            yield from self.say_done(n)
        place.end_read(n)
        yield

    def walk(self, i, n):
        """All visits of work item i, from n on; returned by the generator: the one after."""
        visit = self.visit_exact if self.block.mode is Mode.EXACT else self.visit_by_maxima
        again, ends, first_turn = True, False, True
        while True:
            yield from self.await_keys(n)
            yield from self.compute_scores(i, n, ends, first_turn)
            again = yield from visit(n, again)
            ends = first_turn = not again
            if again:
                continue
            yield from self.release_keys(n)
            if self.keep[n] and not self.block.mode.dense:
                yield from self.publish(n)
            if self.keep[n]:
                yield from self.read_values(n)
            n += 1
            self.visits -= 1
            if self.visits == 0:
                break
        yield from self.end_visit(n - 1)
        return n

    def finish(self, i):
        block = self.block
        block.read_item(i)  # again
        yield
        parts = block.recall[self.group][i % self.protocol.recall_slots]
        parts.told[self.warp] = i
        yield
        yield self.sync
        if self.warp == 0:
            block.read_item(i)
            parts.expect(i)
            yield

    def leave_item(self, i):
        if self.warp == 0:
            yield from self.block.leave_item(i)

    def start_together(self):
        if self.block.mode.dense and self.visits >= self.protocol.long_walk:
            yield self.block.consumers_barrier

    def run(self):
        block, protocol = self.block, self.protocol
        n = 0
        for i in itertools.count():
            self.visits = yield from block.take_item(i)
            if self.visits is None:
                return
            yield Wait(block.q_full[self.group], i)
            yield from self.start_together()
            idle = self.visits == 0
            if not idle:
                n = yield from self.walk(i, n)
            elif not protocol.idle_q_empty_after_sync:
                yield from self.release_rows()
            if not protocol.item_read_before_taken:
                yield from self.leave_item(i)
            yield from self.finish(i)
            if idle and protocol.idle_q_empty_after_sync:
                yield from self.release_rows()
            if protocol.item_read_before_taken:
                yield from self.leave_item(i)


# ---- Checks -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Kind:
    """Of schedules. Those that freeze one party skip most visits, and have work items end where the
    openings of the gate are hardest to get right."""

    mode: Mode
    groups: int
    often_frozen: str | None = None  # the name of a party

    def __str__(self):
        frozen = f", {self.often_frozen} often frozen" if self.often_frozen else ""
        return f"{self.mode.value}, {self.groups} warpgroups{frozen}"


GROUPS = (2, 3)
ALL_KINDS = [Kind(mode, groups) for mode in Mode for groups in GROUPS]
SPARSE_KINDS = [kind for kind in ALL_KINDS if not kind.mode.dense]
V_PRODUCER_KINDS = [Kind(kind.mode, kind.groups, "the V producer") for kind in SPARSE_KINDS]
V_TILE_KINDS = [Kind(kind.mode, kind.groups, "V tiles") for kind in SPARSE_KINDS]
K_TILE_KINDS = [Kind(kind.mode, kind.groups, "K tiles") for kind in SPARSE_KINDS]
MAXIMA_K_TILE_KINDS = [kind for kind in K_TILE_KINDS if kind.mode is not Mode.EXACT]
RECORDER_KINDS = [Kind(kind.mode, kind.groups, "the recorder") for kind in SPARSE_KINDS]
EXACT_KINDS = [kind for kind in ALL_KINDS if kind.mode is Mode.EXACT]


def split(chance, visits, step):
    """Into work items; where one ends is a multiple of step, unless it has the last visits."""
    items = chance.randint(1, MOST_ITEMS)
    ends = sorted(step * chance.randint(0, visits // step) for _ in range(items - 1))
    return [end - start for start, end in zip([0, *ends], [*ends, visits])]


def random_items(chance, kind, protocol):
    """How many visits each work item has."""
    if kind.often_frozen:
        step = chance.choice((1, protocol.gate_visits))
        return split(chance, protocol.gate_visits * chance.randint(1, 10), step)
    manner = chance.random()
    if manner < (0.15 if kind.mode.dense else 0.05):  # dense, long walks start together
        return split(chance, chance.randint(0, LONG_BLOCK), 1)
    if manner < 0.25:
        return [chance.randint(0, TINY) for _ in range(chance.randint(1, MANY_ITEMS))]
    items = split(chance, chance.randint(0, MOST_VISITS), 1)
    if manner < 0.5:
        items[chance.randrange(len(items))] = 0
    return items


def run_schedule(protocol, kind, seed):
    """What went wrong, or None. The same seed runs the same schedule."""
    chance = random.Random(f"{seed} {kind}")
    items = random_items(chance, kind, protocol)
    ends = list(itertools.accumulate(items))
    firsts = {end - visits for visits, end in zip(items, ends) if visits}
    scheduler = Scheduler(chance, kind.often_frozen)
    decisions = Decisions(chance, kind.mode, kind.groups, ends[-1], firsts,
                          bool(kind.often_frozen))
    try:
        Block(protocol, kind.mode, kind.groups, items, decisions, scheduler).run()
    except ProtocolError as error:
        return f"{kind}, visits of items: {items}, seed {seed}: {error}"
    return None


def check_kind(kind, schedules, seed):
    """True if no schedule breaks the protocol."""
    protocol = kernel_protocol()
    if kind in V_PRODUCER_KINDS:  # what these look for is rare
        schedules *= 3
    for one in range(seed, seed + schedules):
        error = run_schedule(protocol, kind, one)
        if error:
            print(f"FAILED {error}", flush=True)
            return False
    print(f"ok     {kind}: {schedules} schedules", flush=True)
    return True


@dataclasses.dataclass(frozen=True)
class Breakage:
    """What must be caught, within how many schedules."""

    name: str
    changes: dict
    kinds: list
    schedules: int = 2000


def breakages(kernel):
    return [
        Breakage("no gate", {"gate": False}, SPARSE_KINDS),
        Breakage("gate opened before the V producer's waits", {"gate_after_waits": False},
                 V_PRODUCER_KINDS, 6000),
        Breakage("half the slots", {"slots": kernel.slots // 2}, SPARSE_KINDS),
        Breakage("half the slots, gate twice as often",
                 {"slots": kernel.slots // 2, "gate_visits": kernel.gate_visits // 2},
                 SPARSE_KINDS),
        Breakage("entries of two batches of visits alone",
                 {"visits_known": 2 * kernel.visits_at_once}, SPARSE_KINDS),
        Breakage("done before the vote", {"vote_before_done": False}, SPARSE_KINDS),
        Breakage("votes not zeroed", {"votes_zeroed": False}, SPARSE_KINDS),
        Breakage("V tiles fetched in vain not waited for", {"vain_tiles_awaited": False},
                 V_TILE_KINDS),
        Breakage("V loaded without waiting for its place", {"v_place_awaited": False}, ALL_KINDS),
        Breakage("v_ready of skipped visits does not pass", {"v_ready_when_skipped": False},
                 SPARSE_KINDS),
        Breakage("block ends with V tiles on their way", {"v_awaited_at_end": False},
                 V_TILE_KINDS),
        Breakage("V released early", {"v_read_before_done": False}, ALL_KINDS),
        Breakage("K released early", {"scores_before_k_empty": False}, ALL_KINDS),
        Breakage("one exchange slot instead of two", {"exchange_slots": 1}, EXACT_KINDS),
        Breakage("weighing again before all have read", {"sync_before_weighing_again": False},
                 EXACT_KINDS),
        Breakage("work items announced before those there are left", {"items_awaited": False},
                 ALL_KINDS),
        Breakage("one work item known, without waiting", {"items_known": 1, "items_awaited": False},
                 ALL_KINDS),
        Breakage("a work item announced before its first visits",
                 {"first_entries_before_item": False}, ALL_KINDS),
        Breakage("work items left before the last look", {"item_read_before_taken": False},
                 ALL_KINDS),
        Breakage("the recorder not waited for", {"recorder_leaves": False}, RECORDER_KINDS),
        Breakage("Q loaded without waiting for its place", {"q_place_awaited": False}, ALL_KINDS),
        Breakage("Q released early", {"scores_before_q_empty": False}, ALL_KINDS),
        Breakage("Q released before all have seen it, without visits",
                 {"idle_q_empty_after_sync": False}, ALL_KINDS),
        Breakage("items end where the recorder opens the gate twice",
                 {"recorder_follows_v": False}, V_PRODUCER_KINDS),
        Breakage("an item's first visit does not look ahead", {"again_looks_ahead": False},
                 MAXIMA_K_TILE_KINDS),
        Breakage("one slot for recalls instead of two", {"recall_slots": 1}, ALL_KINDS),
    ]


def check_breakage(breakage, seed):
    """True if it is caught."""
    protocol = dataclasses.replace(kernel_protocol(), **breakage.changes)
    for i in range(breakage.schedules):
        error = run_schedule(protocol, breakage.kinds[i % len(breakage.kinds)], seed + i)
        if error:
            print(f"ok     {breakage.name}: caught by schedule {i + 1}\n         {error}",
                  flush=True)
            return True
    print(f"FAILED {breakage.name}: not caught by {breakage.schedules} schedules", flush=True)
    return False


def main():
    parser = argparse.ArgumentParser(description="A model of the Hopper kernel's barriers.")
    parser.add_argument("--schedules", type=int, default=100, help="of each kind")
    parser.add_argument("--seed", type=int, default=1, help="of the first")
    settings = parser.parse_args()
    results = [check_kind(kind, settings.schedules, settings.seed)
               for kind in ALL_KINDS + V_PRODUCER_KINDS + V_TILE_KINDS + K_TILE_KINDS +
               RECORDER_KINDS]
    results += [check_breakage(breakage, settings.seed)
                for breakage in breakages(kernel_protocol())]
    print(f"{results.count(True)} passed, {results.count(False)} failed, 0 skipped")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
