"""Counts of the abstract machine: tables that count tokens, the keys they are read with, rows that become distributions.

Whether a count may enter a probability is decided by three things that are followed here. The *reach* of a key is the
latest token in it: a key that reaches the scored token was formed with the answer. A count divided by the count of a
shorter key is the estimate of one token only. A row of counts that is divided by its own sum, or goes through a softmax,
is a distribution over the vocabulary.
"""

from __future__ import annotations

from auditor.static.heap import Listing
from auditor.static.records import UpdateRecord, Where
from auditor.static.values import (
    COUNTS,
    FLAG,
    GRAPH,
    LEARNT,
    NONE,
    PARAMS,
    SCORED,
    TABLE,
    TOKENS,
    UNKNOWN,
    Fact,
    Facts,
    Value,
    constant,
    disjoint,
    limited,
)

# Reach of a count that was read without a token in its key, and of one that was divided by a count of a shorter key.
NO_KEY, BEYOND = -99, 99
# Whether a table already held the tokens of the key it is read with.
LATER, PERHAPS, OWN = 0, 1, 2
# How a count takes part: as a number for one token, as a row over the vocabulary that sums to one, or as a row whose
# sum nobody can tell.
# An entry is one number out of the row of its context, read at the scored token; rates are of a table that was divided
# before it was read. Neither is found by a key that holds the scored token.
SINGLE, ROW, LOOSE, ENTRY, RATES = "single", "row", "loose", "entry", "rates"
_MAX_JOINS = 12
Joins = frozenset[tuple[Where, int]]
_NO_KEYS = frozenset({GRAPH, PARAMS, SCORED, COUNTS, LEARNT})


def count(table: int, reach: int, split: str, place: Where, own: int, joins: Joins = NONE, form: str = SINGLE) -> Fact:
    """The fact of a count: which table, latest token of the key, tokens it was filled with, where it was read.

    `own`: whether the table already held the tokens of the key (`OWN`, `PERHAPS`, `LATER`); `joins`: (place, reach) where tokens were joined to the key.
    """
    return (COUNTS, table, reach, split, place, own, joins, form)


def formed(facts: Facts, form: str) -> Facts:
    """The same facts with every count taking part as `form`; what is a row once stays one."""
    return frozenset((*f[:7], form) if f[0] == COUNTS and f[7] != ROW else f for f in facts)


def _joins(keys: Facts) -> Joins:
    return frozenset(sorted({(f[2], f[3]) for f in keys if f[:2] == (FLAG, "joined")})[-_MAX_JOINS:])


def _beyond(fact: Fact, over: list[Fact]) -> Fact:
    """A count whose key is that of a count in `over` and one token more: it is about that token alone."""
    shorter = [f for f in over if f[1] != fact[1] and f[2] != NO_KEY and (fact[2] > f[2] or fact[6] > f[6])]
    if not shorter:
        return fact
    extra = fact[6] - shorter[0][6]
    reach = max((r for _, r in extra), default=0)
    return (*fact[:2], BEYOND, *fact[3:6], frozenset((place, BEYOND) for place, r in extra if r == reach), fact[7])


class Counting:
    """Mixed into `Machine`."""

    # -- filling ---------------------------------------------------------------------------------------------------

    def mark_table(self, held: Value) -> None:
        """The value counts things at token-derived keys."""
        target = held.base or held
        if not any(f[0] == TABLE for f in target.facts):
            self.table_count += 1
            fact = (TABLE, self.table_count, self.here())
            self.journal.facts(target, target.facts | {fact})
            if target is not held:
                self.journal.facts(held, held.facts | {fact})

    def table_update(self, held: Value, tokens: Facts) -> None:
        """Tokens are counted in a table."""
        table = next((f for f in (held.base or held).facts if f[0] == TABLE), None)
        if table is not None:
            for split in sorted({f[1] for f in tokens}):
                at = frozenset().union(*(f[2] for f in tokens if f[1] == split))
                record = UpdateRecord(
                    "update", self.here(), split=split, at=at, owner=-table[1], how="table", facts=tokens
                )
                self.updates.append(record)
                self.emit(record)

    def counted_ids(self, out: Value) -> None:
        """`bincount(ids)`: the result is the table, its making the counting."""
        tokens = frozenset(f for f in out.facts if f[0] == TOKENS)
        # A later round of the same calls adds to the same table.
        where = (self.here(), *self.stack)
        if where in self.table_places:
            self.journal.facts(out, out.facts | {self.table_places[where]})
        else:
            self.mark_table(out)
            self.table_places[where] = next((f for f in out.facts if f[0] == TABLE), (TABLE, 0, self.here()))
        if tokens:
            self.table_update(out, tokens)

    # -- keys ------------------------------------------------------------------------------------------------------

    def joined(self, left: Value, right: Value) -> Facts:
        """Two numbers made of tokens become one key at this line; nothing for any other arithmetic."""
        reach = NO_KEY
        for value in (left, right):
            # What was kept in one file with counts and not looked up (an order, a size, a prime) may be part of a key.
            if any(f[0] in _NO_KEYS and not (f[0] == COUNTS and f[2] == NO_KEY) for f in value.facts):
                return NONE
            latest = max((f[3] for f in value.facts if f[0] == TOKENS), default=None)
            if latest is None:
                return NONE
            reach = max(reach, latest)
        return frozenset({(FLAG, "joined", self.here(), reach)})

    # -- mixing ----------------------------------------------------------------------------------------------------

    def mixture(self, values: list[Value]) -> None:
        """Notes the losses that meet a count here: a value that holds both already says nothing new."""
        parts = [p for v in values for p in ((isinstance(v.obj, Listing) and v.obj.items) or (v,))]
        kinds = [{f[0] for f in part.facts} & {SCORED, COUNTS} for part in parts]
        if not any(COUNTS in kind for kind in kinds):
            return
        for part, kind in zip(parts, kinds, strict=True):
            numbers = {f[1] for f in part.facts if f[0] == SCORED}
            if kind == {SCORED} or (len(numbers) == 1 and {COUNTS} in kinds):
                self.mixed_losses |= numbers

    # -- reading ---------------------------------------------------------------------------------------------------

    def table_read(self, facts: Facts, keys: Facts, entry: bool = False) -> Facts:
        """Facts of a count read from a table: its content influences like a state, the key is remembered.

        `entry`: the key picks a token in the row of a context that was picked before or beside it.
        """
        out: set = set()
        tables = [f for f in facts if f[0] == TABLE]
        for fact in facts:
            if fact[0] == TOKENS:
                out.add((LEARNT, fact[1], fact[2], fact[3], -tables[0][1], "table", tables[0][2]))
            elif fact[0] not in (COUNTS, TABLE):
                out.add(fact)
        key_tokens = [f for f in keys if f[0] == TOKENS]
        reach = max((f[3] for f in key_tokens), default=NO_KEY)
        joins = _joins(keys)
        for table in tables:
            splits = {f[1] for f in facts if f[0] in (TOKENS, LEARNT)}
            split = "val" if "val" in splits else next(iter(splits), "")
            own = self.held_before(table, facts, key_tokens)
            form = RATES if (FLAG, "rates") in facts else ENTRY if entry else SINGLE
            out.add(count(table[1], reach, split, self.here(), own, joins, form))
        out |= {f for f in keys if f[0] in (TOKENS, LEARNT)}
        return frozenset(out)

    def counts_in_row(self, facts: Facts, keys: list[Fact]) -> Facts:
        """Facts of a distribution that tables took part in as a whole: their counts are in every entry of the row.

        `keys`: the tokens it is read at. They look nothing up in the tables, which may hold them already.
        """
        counted = frozenset(
            count(f[1], NO_KEY, "val" if any(t[:2] == (TOKENS, "val") for t in facts) else "",
                  self.here(), self.held_before(f, facts, keys), NONE, ROW)
            for f in facts if f[0] == TABLE
        )  # fmt: skip
        return counted | frozenset(f for f in facts if f[0] not in (TABLE, TOKENS))

    def held_before(self, table: Fact, facts: Facts, keys: list[Fact]) -> int:
        """Whether the table held the tokens of the key before it was read with it: `OWN`, `PERHAPS` or `LATER`.

        A table that is filled in the loop that reads it is filled in turn. One that was filled before that loop holds
        the tokens when it was given the whole stream, or when they had been scored where it was filled; a loop that
        only replays what precedes a rank's share looks alike otherwise.
        """
        counted = [f for f in facts if f[0] in (TOKENS, LEARNT) and f[1] == "val"]
        overlapping = [f for f in counted for k in keys if k[1] == "val" and not disjoint(f[2], k[2])]
        if not overlapping:
            return LATER
        here = {number for number, _ in self.loops}
        updates = [u for u in self.updates if u.owner == -table[1] and u.split == "val"]
        around = {n for u in updates for n, _ in u.loops} | {n for f in counted for n, _ in f[2]}
        if here & around:
            return LATER
        scored = {n for s in self.scores if s.split == "val" for n, _ in s.loops}
        return OWN if not around or scored & around or any(not f[2] for f in overlapping) else PERHAPS

    def kept_counts(self, facts: Facts) -> Facts:
        """What a file keeps of a table: counts that nobody has read with a key yet."""
        # Counts of training tokens that were written are in the artifact like weights, and no training data any more.
        split = "val" if any(f[0] in (TOKENS, LEARNT) and f[1] == "val" for f in facts) else "artifact"
        return frozenset(count(f[1], NO_KEY, split, self.here(), LATER) for f in facts if f[0] == TABLE)

    def reread(self, facts: Facts, keys: Facts) -> Facts:
        """Counts that came from a file are read with this key."""
        reach = max((f[3] for f in keys if f[0] == TOKENS), default=NO_KEY)
        if reach == NO_KEY:
            return facts
        joins = _joins(keys)
        return frozenset(
            count(f[1], reach, f[3], self.here(), f[5], joins) if f[0] == COUNTS and f[2] == NO_KEY else f
            for f in facts
        )

    # -- distributions ---------------------------------------------------------------------------------------------

    def divided(self, facts: Facts, left: Value, right: Value) -> Facts:
        """A count divided by the sum of its row is a distribution; divided by the count of a shorter key it is not."""
        if any(f[0] == TABLE for f in left.facts):
            return facts | {(FLAG, "rates")}
        over = [f for f in right.facts if f[0] == COUNTS]
        mine = {f[1] for f in left.facts if f[0] == COUNTS}
        if not over or not mine:
            return facts
        if (FLAG, "sum") in right.facts and mine <= {f[1] for f in over}:
            return formed(facts - {(FLAG, "sum")}, ROW)
        return frozenset(_beyond(f, over) if f[0] == COUNTS and f[1] in mine else f for f in facts)

    def method_sum(self, receiver: Value, args: list[Value], keywords: dict[str, Value]) -> Value | None:
        """The sum of a row of counts."""
        kinds = {f[0] for f in receiver.facts}
        if receiver.obj is not None or COUNTS not in kinds or SCORED in kinds:
            return None
        out = Value(limited(self.used(receiver) | {(FLAG, "sum")}), UNKNOWN, None, receiver.at, solid=True)
        out.offset = receiver.offset
        return out

    def function_where(self, args: list[Value], keywords: dict[str, Value]) -> Value | None:
        """`where(condition, a, b)`: positions stay positions."""
        if len(args) != 3:
            return None
        out = self.opaque(args)
        out.facts = out.facts | self.picked_by_loss(*args)
        out.solid = True
        out.offset = max(args[1].offset, args[2].offset)
        return out

    def function_concatenate(self, args: list[Value], keywords: dict[str, Value]) -> Value | None:
        """`concatenate([a, b])`: positions stay positions."""
        if not args or not isinstance(args[0].obj, Listing):
            return None
        out = self.opaque([*args, *keywords.values()])
        out.solid = True
        merged = self.elements(args[0])
        out.offset = merged.offset
        return out

    def function_all_gather_object(self, args: list[Value], keywords: dict[str, Value]) -> Value | None:
        """`all_gather_object(parts, mine)`: every part is what some rank handed in."""
        if len(args) < 2 or not isinstance(args[0].obj, Listing):
            return None
        self.journal.put(args[0].obj.slots, "items", None)
        self.journal.put(args[0].obj.slots, "sum", args[1])
        return constant(None)

    function_all_gather = function_all_gather_object
