"""One serving engine once more, as slowly and plainly as it can be written.

Every block of the KV cache is an object that says what was computed into it; every request has the
list of its blocks; tokens are counted one request at a time. There is one loop over all that run,
as vLLM's V1 scheduler has it, whether they answer or their prompts still enter. No heaps, no sums
kept up to date, no events.

Rules, from the heads of `npusim.serving.scheduler` and `npusim.serving.pool`:

- who entered last is stopped where a block is missing, and waits in front of all others;
- free blocks are taken from the one let go longest ago, of one request the last token's first;
- a prefix is found by others once the prompt of the one that computed it has entered; who finds
  less of it than there could be computes the rest, and that is the prefix's then; a second copy
  that was computed meanwhile is its owner's alone; what none of its holders needs is forgotten;
- what someone who comes back finds, block by block: the prefix's, or its own that are free; what
  is not taken then is of no use any more;
- the last token of a prompt is always computed.
"""

from dataclasses import dataclass, field


@dataclass(eq=False)
class Block:
    holds: tuple | None = None  # (whose, which of its blocks)


@dataclass(eq=False)
class Asked:
    number: int
    request: object
    entered: float = -1.0
    first: float = -1.0
    done: float = -1.0
    stops: int = 0
    cached: int = 0
    computed: int = 0
    made: int = 0
    under_way: bool = False
    blocks: list = field(default_factory=list)
    shares: int = 0  # of its blocks, from the first, those of its prefix that others may hold too

    @property
    def goal(self):
        return self.request.prompt + self.made


class Naive:
    """An engine; `seconds` tells how long a step takes."""

    def __init__(self, policy, seconds):
        self.policy, self.seconds = policy, seconds
        self.free = [Block() for _ in range(policy.blocks)]
        self.used = 0
        self.prefixes = {}  # name: its blocks
        self.holders = {}  # name: who holds them
        self.waiting, self.running, self.images = [], [], []
        self.rows = []  # of each step: end, tokens, samples, running, waiting, blocks

    def serve(self, requests):
        """Return all requests as they went, in the order in which they came."""
        coming = [Asked(n, r) for n, r in enumerate(sorted(requests, key=lambda r: r.arrival_s))]
        every, now = list(coming), 0.0
        while any(one.done < 0 for one in every):
            while coming and coming[0].request.arrival_s <= now:
                self.waiting.append(coming.pop(0))
            self.plan(now)
            if not self.work:
                now = coming[0].request.arrival_s
                continue
            ends = sum(one.computed + n == one.goal for one, n in self.work.items())
            row = (sum(self.work.values()), ends, len(self.running), len(self.waiting), self.used)
            now += self.seconds(self.described())
            self.rows.append((now, *row))
            self.finish(now)
        return every

    def described(self):
        """Return what a step works on, as plain numbers."""
        prompts = [(n, one.computed) for one, n in self.work.items() if not one.under_way]
        decodes = [one.computed + 1 for one in self.work if one.under_way]
        return prompts, len(decodes), sum(decodes), self.encoded, self.extra

    # ------------------------------------------------------------ what a step works on

    def plan(self, now):
        self.work, self.encoded, self.extra = {}, [], 0.0
        self.left, self.stopped = self.policy.max_tokens, False
        if self.policy.mixed:
            self.go_on(self.running)
        else:
            self.go_on([one for one in self.running if not one.under_way])
        if not self.stopped:
            self.let_in(now)
        if not self.policy.mixed and not self.work:
            self.go_on([one for one in self.running if one.under_way])

    def go_on(self, some):
        for one in list(some):
            tokens = min(one.goal - one.computed, self.left)
            if one not in self.running or tokens == 0:
                continue
            while one in self.running and self.missing(one, tokens) > self.room():
                self.stop(self.running[-1])
            if one in self.running:
                self.grow(one, tokens)

    def let_in(self, now):
        policy = self.policy
        while self.waiting and self.left and len(self.running) < policy.max_seqs:
            if policy.one_by_one and any(not one.under_way for one in self.work):
                return
            one = self.waiting[0]
            found = self.find(one)
            rest = one.goal - len(found) * policy.block
            tokens = min(rest, self.left)
            if tokens < rest and not policy.chunked:
                return
            most = one.goal if policy.reserve_prompt else one.goal - rest + tokens
            wanted = -(-most // policy.block) - len(found)
            if wanted > self.room() - sum(block in self.free for block in found):
                return
            self.waiting.pop(0)
            self.enter(one, found)
            if one.entered < 0:
                one.entered, one.cached = now, one.computed
            if one.stops == 0:
                self.encode(one.request)
            self.grow(one, tokens)

    def encode(self, request):
        self.extra += request.work_s
        names = [name for name, _ in self.images]
        if not request.image:
            return
        if request.image in names:
            self.images.append(self.images.pop(names.index(request.image)))
            return
        self.encoded.append(request.image_tokens)
        if request.image_tokens <= self.policy.encoder_tokens:
            self.images.append((request.image, request.image_tokens))
            while sum(tokens for _, tokens in self.images) > self.policy.encoder_tokens:
                self.images.pop(0)

    def stop(self, one):
        self.stopped = True
        self.left += self.work.pop(one, 0)
        self.running.remove(one)
        one.stops += 1
        self.release(one, comes_back=True)
        self.waiting.insert(0, one)

    # ------------------------------------------------------------ blocks

    def room(self):
        return len(self.free) if self.policy.blocks else float("inf")

    def missing(self, one, tokens):
        return -(-(one.computed + tokens) // self.policy.block) - len(one.blocks)

    def grow(self, one, tokens):
        for _ in range(self.missing(one, tokens)):
            block = self.free.pop(0) if self.policy.blocks else Block()
            block.holds = None
            self.used += 1
            one.blocks.append(block)
        self.work[one] = tokens
        self.left -= tokens

    def prefix(self, name):
        """Return the blocks of a prefix that are still what they were."""
        found = []
        for n, block in enumerate(self.prefixes.get(name, [])):
            if block.holds != (name, n):
                break
            found.append(block)
        return found

    def find(self, one):
        if not self.policy.prefix_cache:
            return []
        shared = self.prefix(one.request.prefix)[: one.request.prefix_tokens // self.policy.block]
        found = []
        for n in range((one.goal - 1) // self.policy.block):
            own = [block for block in self.free if block.holds == (one.number, n)]
            if n < len(shared):
                found.append(shared[n])
            elif own:
                found.append(own[0])
            else:
                break
        return found

    def enter(self, one, found):
        name = one.request.prefix
        there = self.prefix(name)
        one.shares = sum(block in there for block in found)
        if one.shares:
            if not self.holders.get(name):
                for block in there[one.shares :]:
                    block.holds = None
                self.prefixes[name], self.holders[name] = found[: one.shares], set()
            self.holders[name].add(one)
        for block in found:
            if block in self.free:
                self.free.remove(block)
                self.used += 1
        for block in self.free:
            if block.holds and block.holds[0] == one.number:
                block.holds = None
        one.blocks, one.computed = found, len(found) * self.policy.block
        self.running.append(one)

    def publish(self, one):
        name, count = one.request.prefix, one.request.prefix_tokens // self.policy.block
        there = self.prefix(name)
        if not self.policy.prefix_cache or not count or len(there) > count:
            return
        if self.holders.get(name) and one.shares < len(there):
            return  # others hold what it does not
        if not one.shares:
            for block in there:
                block.holds = None
        for n in range(one.shares, count):
            one.blocks[n].holds = (name, n)
        one.shares = count
        self.prefixes[name] = one.blocks[:count]
        self.holders.setdefault(name, set()).add(one)

    def release(self, one, comes_back):
        own = one.blocks[one.shares :]
        for n, block in enumerate(own, one.shares):
            full = (n + 1) * self.policy.block <= one.computed
            keep = comes_back and full and self.policy.prefix_cache
            block.holds = (one.number, n) if keep else None
        self.let_go(own)
        if one.shares:
            name = one.request.prefix
            self.holders[name].remove(one)
            if not self.holders[name]:
                self.let_go(self.prefixes[name])
            else:
                needed = max(other.shares for other in self.holders[name])
                beyond = self.prefixes[name][needed:]
                for block in beyond:
                    block.holds = None
                self.let_go(beyond)
                self.prefixes[name] = self.prefixes[name][:needed]
        one.blocks, one.shares, one.computed, one.under_way = [], 0, 0, False

    def let_go(self, blocks):
        self.free += reversed(blocks)
        self.used -= len(blocks)

    # ------------------------------------------------------------ what it did

    def finish(self, now):
        for one, tokens in self.work.items():
            one.computed += tokens
            if one.computed < one.goal:
                continue
            if not one.under_way:
                self.publish(one)
            one.made += 1
            one.under_way = True
            if one.first < 0:
                one.first = now
        for one in list(self.running):
            if one.made == one.request.output:
                one.done = now
                self.running.remove(one)
                self.release(one, comes_back=False)
