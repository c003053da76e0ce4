#!/usr/bin/env python3
"""A model of how the warps of the Hopper kernel hand tiles, votes and visits over.

usage: hopper_model.py [--schedules N] [--seed S]

backends/cuda/hopper/ has the kernel: producer.cuh, recorder.cuh and consumer.cuh are what the
actors here do, step by step, under the same names. The constants are read from its headers.

What is modelled: one thread block. Each warp is a generator, an actor, that stops wherever
another warp may come between: at a plain step, at a wait for a phase of an mbarrier, at a named
barrier. Tiles land in pieces, each after a delay of its own. A scheduler runs all of them at
random: some equally fast, some thousands of times slower, some frozen until nobody else can go on.
mbarriers know phases by parity alone, as they do on the card, while the model also knows which
phase a wait means.

What is not: memory is sequentially consistent, lanes of a warp move together, decisions are
random, nothing is computed. So it finds missing waits, not missing fences.

What is checked: no deadlock; no wait that passes by another phase than the one meant, or misses
its own; no tile, visit entry, vote word or exchange slot written over while somebody needs it;
every kept visit reads its own V tile; what is recorded is what was decided; nothing on its way at
the end. Then the model itself is checked: what breaks the protocol must be caught.

A failure names its seed: --schedules 1 --seed THAT runs it again. Long runs use other seeds than
the default's.
"""

import argparse
import dataclasses
import enum
import functools
import heapq
import pathlib
import random
import re
import sys

HOPPER = pathlib.Path(__file__).resolve().parents[2] / "backends" / "cuda" / "hopper"
WARPS = 4  # of a warpgroup
MOST_VISITS = 60
LONG_WALK = 300  # visits, now and then: entries of visits come round again
PIECES = 4  # that a tile lands in
KEPT = 256  # in a vote word, shifted by the warpgroup; below it is how many skip


class ProtocolError(Exception):
    """The warps did what they must never do."""


# ---- What runs ----------------------------------------------------------------------------------


def read_constants():
    """Those of the headers that the protocol depends on, by name."""
    text = "".join((HOPPER / name).read_text("utf-8") for name in ("params.h", "layout.cuh"))
    constants = {}
    for name in ("SLOTS", "GATE_VISITS", "VISITS_AT_ONCE", "VISITS_KNOWN", "HOPPER_K_STAGES",
                 "HOPPER_V_STAGES"):
        found = re.search(rf"\b{name} = ([^,}}/]+)", text)
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
    gate: bool = True
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
                    c["HOPPER_K_STAGES"], c["HOPPER_V_STAGES"])


class Mode(enum.Enum):
    """As the kernel's walk_mode; measured votes wait where votes do."""

    DENSE = "dense"
    VOTES = "votes"
    ESTIMATED = "estimated"
    EXACT = "exact"


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
        self.k_tiles, self.v_tiles = Party("K tiles"), Party("V tiles")  # and Q, with those of K
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
        parties = [*self.actors, self.k_tiles, self.v_tiles]
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
    """A place in shared memory for a tile of K or V."""

    def __init__(self, name, scheduler, tiles):
        self.name = name
        self.scheduler = scheduler
        self.tiles = tiles  # the party that brings them
        self.visit = None  # whose tile is there, all of it
        self.readers = 0
        self.missing_pieces = 0

    def load(self, visit, barrier):
        if self.missing_pieces:
            raise ProtocolError(f"{self.name} is loaded for visit {visit}, and not there yet")
        self.refuse_readers(visit)
        self.visit = None
        self.missing_pieces = PIECES
        barrier.arrive(PIECES)
        for _ in range(PIECES):
            self.scheduler.copy(self.tiles, functools.partial(self.land_piece, visit, barrier))

    def land_piece(self, visit, barrier):
        self.refuse_readers(visit)
        self.missing_pieces -= 1
        if self.missing_pieces == 0:
            self.visit = visit
        barrier.land_piece()

    def refuse_readers(self, visit):
        if self.readers:
            raise ProtocolError(f"{self.name} is written for visit {visit} while it is read")

    def begin_read(self, visit):
        self.readers += 1
        self.expect(visit)

    def end_read(self, visit):
        self.readers -= 1
        self.expect(visit)

    def expect(self, visit):
        if self.visit != visit:
            raise ProtocolError(f"visit {visit} reads {self.name}, which has that of {self.visit}")


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
    """Where each warp of a warpgroup puts its sum, for the others to read."""

    def __init__(self):
        self.told = [None] * WARPS

    def expect(self, subject):
        if self.told != [subject] * WARPS:
            raise ProtocolError(f"sums of {subject} (visit, turn) read where {self.told} are")


class Decisions:
    """Random: which visits each warpgroup keeps, and which it weighs again."""

    def __init__(self, chance, mode, groups, visits, mostly_skips):
        densities = (0, 0.02, 0.1) if mostly_skips else (0, 0.02, 0.1, 0.3, 0.5, 0.8, 0.95, 1)
        self.chance = chance
        self.density = chance.choice(densities)
        self.again_share = chance.choice((0, 0.05, 0.3))
        self.in_runs = chance.random() < 0.5
        self.alike = chance.random() < 0.5
        self.keep = [[True] * visits for _ in range(groups)]
        self.again = [[n == 0 or chance.random() < self.again_share for n in range(visits)]
                      for _ in range(groups)]
        if mode is not Mode.DENSE:
            for group in range(groups):
                self.decide(group, visits)

    def decide(self, group, visits):
        for n in range(1, visits):  # the first one is always kept
            keep = self.chance.random() < self.density
            if self.in_runs and n > 1 and self.chance.random() < 0.7:
                keep = self.keep[group][n - 1]
            if self.alike and group > 0 and self.chance.random() < 0.8:
                keep = self.keep[0][n]
            self.keep[group][n] = keep

    def anybody_keeps(self, n):
        return any(keep[n] for keep in self.keep)

    def votes(self, n):
        return sum(KEPT << group if keep[n] else 1 for group, keep in enumerate(self.keep))


class Block:
    """A thread block: what its warps share, and the warps."""

    def __init__(self, protocol, mode, groups, visits, decisions, scheduler):
        self.protocol, self.mode, self.decisions = protocol, mode, decisions
        self.groups, self.visits, self.scheduler = groups, visits, scheduler
        self.make_barriers()
        self.k = [TilePlace(f"K place {i}", scheduler, scheduler.k_tiles)
                  for i in range(protocol.k_stages)]
        self.v = [TilePlace(f"V place {i}", scheduler, scheduler.v_tiles)
                  for i in range(protocol.v_stages)]
        self.entries = [None] * protocol.visits_known
        self.votes = [VoteWord(i) for i in range(protocol.slots)]
        self.exchange = [[ExchangeSlot() for _ in range(protocol.exchange_slots)]
                         for _ in range(groups)]
        self.recorded = []
        self.visits_read = 0  # V tiles, by warps
        self.add_warps()

    def make_barriers(self):
        def several(name, count, arrivals):
            return [Barrier(f"{name}[{i}]", arrivals) for i in range(count)]

        p = self.protocol
        self.q_full = Barrier("q_full", 1)
        self.k_full = several("k_full", p.k_stages, 1)
        self.k_empty = several("k_empty", p.k_stages, self.groups)
        self.wanted = several("wanted", p.slots, 1)
        self.done = several("done", p.slots, WARPS * self.groups)
        self.v_ready = several("v_ready", p.slots, 1)
        self.gate = Barrier("gate", 2)
        self.list_barrier = NamedBarrier("the list barrier", 2)
        self.group_barriers = [NamedBarrier(f"the barrier of warpgroup {g}", WARPS)
                               for g in range(self.groups)]

    def add_warps(self):
        add = self.scheduler.add_actor
        add("the K producer", KeyProducer(self).run())
        add("the V producer", ValueProducer(self).run())
        add("the recorder", Recorder(self).run())
        for group in range(self.groups):
            for warp in range(WARPS):
                add(f"consumer {group}.{warp}", Consumer(self, group, warp).run())

    @property
    def gated(self):
        return self.mode is not Mode.DENSE and self.protocol.gate

    def of_visit(self, barriers, n):
        return barriers[n % self.protocol.slots]

    def wait_for_visit(self, barriers, n):
        return Wait(self.of_visit(barriers, n), n // self.protocol.slots)

    def vote_word(self, n):
        return self.votes[n % self.protocol.slots]

    def write_entry(self, n):
        self.entries[n % self.protocol.visits_known] = n

    def read_entry(self, n):
        entry = self.entries[n % self.protocol.visits_known]
        if entry != n:
            raise ProtocolError(f"the entry of visit {n} is that of {entry}")

    def run(self):
        self.scheduler.run()
        if self.mode is Mode.DENSE:
            decided = []
        else:
            decided = [self.decisions.votes(n) for n in range(self.visits)]
        if self.recorded != decided:
            raise ProtocolError("what was recorded is not what was decided")
        if any(word.votes for word in self.votes):
            raise ProtocolError("votes are left at the end")
        if self.visits_read != WARPS * sum(sum(keep) for keep in self.decisions.keep):
            raise ProtocolError("kept visits and V tiles read do not agree")


# ---- Producers: producer.cuh --------------------------------------------------------------------


class KeyProducer:
    """Loads Q, reads the list, and keeps the ring of K tiles filled."""

    def __init__(self, block):
        self.block = block

    def load_q(self):
        full, scheduler = self.block.q_full, self.block.scheduler
        full.arrive(PIECES)
        for _ in range(PIECES):
            scheduler.copy(scheduler.k_tiles, full.land_piece)

    def read_list(self, first):
        for n in range(first, first + self.block.protocol.visits_at_once):
            self.block.write_entry(n)
            if n % 8 == 7:  # lanes write together, but not all at the same time
                yield

    def run(self):
        block, protocol = self.block, self.block.protocol
        yield
        self.load_q()
        yield
        yield from self.read_list(0)
        yield block.list_barrier
        for n in range(block.visits):
            if n % protocol.visits_at_once == 0:
                yield from self.read_list(n + protocol.visits_at_once)
            if block.gated and n % protocol.gate_visits == 0 and n >= protocol.slots:
                # The first opening, phase 0, lets visit 2 * gate_visits go on.
                yield Wait(block.gate, n // protocol.gate_visits - 2)
            turn, stage = divmod(n, protocol.k_stages)
            yield Wait(block.k_empty[stage], turn - 1)
            block.read_entry(n)
            block.k[stage].load(n, block.k_full[stage])
            yield


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
        if self.block.mode is Mode.DENSE:
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

    def run(self):
        block, protocol = self.block, self.block.protocol
        sparse = block.mode is not Mode.DENSE
        yield block.list_barrier
        kept = True
        for n in range(block.visits):
            if sparse and n >= protocol.v_stages and protocol.vain_tiles_awaited:
                yield block.wait_for_visit(block.v_ready, n - protocol.v_stages)
            if not protocol.gate_after_waits:
                yield from self.open_gate(n)
            if kept:
                kept = yield from self.visit_loaded_ahead(n)
            else:
                kept = yield from self.visit_loaded_if_wanted(n)
        if protocol.v_awaited_at_end:
            for n in range(max(0, block.visits - protocol.v_stages), block.visits):
                yield block.wait_for_visit(block.v_ready, n)


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
            block.gate.arrive()
            yield

    def run(self):
        block = self.block
        yield
        if block.mode is Mode.DENSE:
            return
        for first in range(0, block.visits, 32):
            batch = range(first, min(first + 32, block.visits))
            for n in batch:
                yield from self.take_votes(n)
            for n in batch:
                block.read_entry(n)
            yield


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
        elif self.protocol.vote_before_done:
            yield from self.publish(n)
            yield from self.say_done(n)
        else:
            yield from self.say_done(n)
            yield from self.publish(n)

    def release_keys(self, n):
        if self.warp == 0:
            self.block.k_empty[n % self.protocol.k_stages].arrive()
            yield

    def look_ahead(self, n):
        """Whether the keys of the next visit are there. Nobody brings any after the last one's."""
        turn, stage = divmod(n + 1, self.protocol.k_stages)
        self.keys_ready = self.block.k_full[stage].lets_pass(self, turn)
        yield

    def await_keys(self, n):
        turn, stage = divmod(n, self.protocol.k_stages)
        if not self.keys_ready:
            yield Wait(self.block.k_full[stage], turn)

    def compute_scores(self, n, again):
        """What follows from the visit before is done meanwhile."""
        place = self.block.k[n % self.protocol.k_stages]
        place.begin_read(n)
        yield
        if n > 0 and not again:
            yield from self.end_visit(n - 1)
        self.block.read_entry(n)
        if not self.protocol.scores_before_k_empty and not again:
            yield from self.release_keys(n)
        place.end_read(n)
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
        if not self.keep[n]:
            return False
        if mode is Mode.DENSE:
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

    def walk(self):
        visit = self.visit_exact if self.block.mode is Mode.EXACT else self.visit_by_maxima
        n, again = 0, True
        yield from self.await_keys(0)
        while True:
            yield from self.compute_scores(n, again)
            again = yield from visit(n, again)
            if again:
                continue
            if self.protocol.scores_before_k_empty:
                yield from self.release_keys(n)
            if self.keep[n] and self.block.mode is not Mode.DENSE:
                yield from self.publish(n)
            if self.keep[n]:
                yield from self.read_values(n)
            n += 1
            if n == self.block.visits:
                break
            yield from self.await_keys(n)
        yield from self.end_visit(n - 1)

    def run(self):
        yield Wait(self.block.q_full, 0)
        if self.block.visits > 0:
            yield from self.walk()
        yield self.sync  # the recall is summed up


# ---- Checks -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Kind:
    """Of schedules. Those that freeze one party skip most visits, and end where the last opening
    of the gate is hardest to get right."""

    mode: Mode
    groups: int
    often_frozen: str | None = None  # the name of a party

    def __str__(self):
        frozen = f", {self.often_frozen} often frozen" if self.often_frozen else ""
        return f"{self.mode.value}, {self.groups} warpgroups{frozen}"


GROUPS = (2, 3)
ALL_KINDS = [Kind(mode, groups) for mode in Mode for groups in GROUPS]
SPARSE_KINDS = [kind for kind in ALL_KINDS if kind.mode is not Mode.DENSE]
V_PRODUCER_KINDS = [Kind(kind.mode, kind.groups, "the V producer") for kind in SPARSE_KINDS]
V_TILE_KINDS = [Kind(kind.mode, kind.groups, "V tiles") for kind in SPARSE_KINDS]
EXACT_KINDS = [kind for kind in ALL_KINDS if kind.mode is Mode.EXACT]


def run_schedule(protocol, kind, seed):
    """What went wrong, or None. The same seed runs the same schedule."""
    chance = random.Random(f"{seed} {kind}")
    visits = chance.randint(0, MOST_VISITS)
    if chance.random() < 0.05:
        visits = chance.randint(0, LONG_WALK)
    if kind.often_frozen:
        visits = protocol.gate_visits * chance.randint(1, 10)
    scheduler = Scheduler(chance, kind.often_frozen)
    decisions = Decisions(chance, kind.mode, kind.groups, visits, bool(kind.often_frozen))
    try:
        Block(protocol, kind.mode, kind.groups, visits, decisions, scheduler).run()
    except ProtocolError as error:
        return f"{kind}, {visits} visits, seed {seed}: {error}"
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
               for kind in ALL_KINDS + V_PRODUCER_KINDS + V_TILE_KINDS]
    results += [check_breakage(breakage, settings.seed)
                for breakage in breakages(kernel_protocol())]
    print(f"{results.count(True)} passed, {results.count(False)} failed, 0 skipped")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
