"""Continuous batching: which requests a step works on.

Before each step, in this order, while tokens and requests have room:

1. every request under way gets one token more;
2. prompts that have entered in part go on;
3. requests that wait enter, the first first, if their prompt finds blocks.

If there are no blocks for 1 or 2, the request that entered last is stopped: its blocks are let go,
and it waits again, in front of all others. What it had computed has to enter again when its turn
comes, prompt and answer so far, but for what is still found in free blocks.

All requests under way have a token more after each step, so nothing is kept for each of them:
when they end is known when they begin to answer, and who needs a block in a step follows from their
lengths modulo the block. A step costs the same whatever the batch.

Source: iteration-level scheduling, G.-I. Yu et al., Orca, OSDI 2022; chunked prefill, A. Agrawal
et al., Sarathi-Serve, arXiv:2403.02310; order and preemption by recomputation as vLLM's first
version of its V1 scheduler has them (docs.vllm.ai).

Left out: priorities, swapping, speculative tokens, partial prompts limited in number or length.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from npusim.serving.policy import Policy
from npusim.serving.pool import Pool
from npusim.serving.request import Request
from npusim.serving.step import Step


@dataclass(slots=True, eq=False)
class Ticket:
    """A request as an engine sees it.

    `computed` tokens are in the cache and `made` of its answer are there; while it answers both
    are those of when it began to, at the engine's `since`. Its first `shared` blocks are its
    prefix's, held together with others; blocks of its own that were let go when it was stopped are
    those `beyond` so many. `turn` counts who entered before it. `brought` tokens of the cache come
    with it from another engine: it gets its next token as one that is under way.
    """

    number: int
    request: Request
    sent_s: float
    client: int = 0
    entered_s: float = -1.0
    first_s: float = -1.0
    done_s: float = -1.0
    computed: int = 0
    made: int = 0
    since: int = -1
    shared: int = 0
    beyond: int = 0
    turn: int = 0
    brought: int = 0
    stops: int = 0
    cached: int = 0

    @property
    def answers(self) -> bool:
        """Whether it is under way: its prompt has entered."""
        return self.since >= 0

    @property
    def target(self) -> int:
        """Tokens that have to be in the cache before it gets its next one."""
        return self.request.prompt + self.made


@dataclass(slots=True)
class _Chunk:
    ticket: Ticket
    new: int


@dataclass
class Scheduler:
    """What waits and what runs on one engine."""

    policy: Policy
    pool: Pool = field(init=False)
    waiting: deque[Ticket] = field(default_factory=deque)
    running: dict[int, Ticket] = field(default_factory=dict)  # by when they entered
    answering: int = 0
    context: int = 0  # tokens in the cache of those under way
    ticks: int = 0  # steps in which those under way got a token
    _ends: list[tuple[int, int, Ticket]] = field(default_factory=list)
    _entering: dict[int, Ticket] = field(default_factory=dict)
    _images: OrderedDict[str, int] = field(default_factory=OrderedDict)
    _image_tokens: int = 0
    _chunks: list[_Chunk] = field(default_factory=list)
    _decoded: bool = False
    _turns: int = 0

    def __post_init__(self) -> None:
        self.pool = Pool(self.policy.blocks, self.policy.prefix_cache)
        self._residues = [0] * self.policy.block

    def refuses(self, request: Request) -> str:
        """Return why a request can never be served here, nothing if it can."""
        if request.tokens > self.policy.max_model_len:
            return f"{request.tokens} tokens, more than --max-model-len {self.policy.max_model_len}"
        return ""

    def add(self, ticket: Ticket) -> None:
        """Let a request wait."""
        self.waiting.append(ticket)

    def plan(self, now: float) -> Step | None:
        """Return the next step, None if there is nothing to do."""
        step = Step()
        self._chunks, self._decoded = [], False
        budget = self.policy.max_tokens
        stopped = False
        if self.policy.mixed:
            stopped = self._decode(step)
            budget -= step.decodes
        budget, more = self._go_on(step, budget)
        if not (stopped or more):
            self._let_in(step, budget, now)
        if not self.policy.mixed and not self._chunks:
            self._decode(step)
        return step if step.decodes or self._chunks else None

    def _decode(self, step: Step) -> bool:
        """Give every request under way its blocks; return whether one was stopped for that."""
        stopped = False
        while self._residues[self.ticks % self.policy.block] > self.pool.free:
            self._stop()
            stopped = True
        if self.answering:
            self.pool.take(self._residues[self.ticks % self.policy.block])
            step.decodes = self.answering
            step.context = self.context + self.answering
            self._decoded = True
        return stopped

    def _go_on(self, step: Step, budget: int) -> tuple[int, bool]:
        """Let prompts go on; return what is left of the tokens, and whether one was stopped."""
        stopped = False
        for ticket in list(self._entering.values()):
            if ticket.number not in self._entering:  # stopped for another one
                continue
            new = min(ticket.target - ticket.computed, budget)
            if new <= 0:
                break
            needs = self._blocks_more(ticket.computed, new)
            while needs > self.pool.free and ticket.number in self.running:
                self._stop()
                stopped = True
            if ticket.number in self.running:
                self.pool.take(needs)
                self._chunk(step, ticket, new)
                budget -= new
        return budget, stopped

    def _let_in(self, step: Step, budget: int, now: float) -> None:
        """Let requests that wait enter."""
        while self.waiting and budget > 0 and len(self.running) < self.policy.max_seqs:
            if self.policy.one_by_one and self._chunks:
                return
            ticket = self.waiting[0]
            shared, own = self._found(ticket)
            found = shared + own
            kept = own if self.pool.held(ticket.request.prefix) else found
            rest = ticket.target - max(found * self.policy.block, ticket.brought)
            new = min(rest, budget)
            if new < rest and not self.policy.chunked and (step.decodes or self._chunks):
                return
            if not self.policy.chunked:
                new = rest
            at_once = ticket.target if self.policy.reserve_prompt else ticket.target - rest + new
            if self.policy.blocks_of(at_once) - found > self.pool.free - kept:
                return
            self.waiting.popleft()
            self._enter(ticket, shared, own, now)
            budget -= new
            if ticket.brought:
                self._join(step, ticket)
                continue
            self.pool.take(self._blocks_more(ticket.computed, new))
            self._encode(step, ticket)
            self._chunk(step, ticket, new)

    def _found(self, ticket: Ticket) -> tuple[int, int]:
        """Return blocks that need not be computed: of its prefix, and after them of its own."""
        if not self.policy.prefix_cache or ticket.brought:
            return 0, 0
        most = (ticket.target - 1) // self.policy.block  # the last token is always computed
        shared = 0
        if ticket.request.prefix:
            whole = ticket.request.prefix_tokens // self.policy.block
            shared = min(self.pool.shared(ticket.request.prefix), whole, most)
        own = self.pool.kept(ticket.number)
        if not own or shared < ticket.beyond:
            return shared, 0
        return shared, max(min(ticket.beyond + own, most) - shared, 0)

    def _enter(self, ticket: Ticket, shared: int, own: int, now: float) -> None:
        self.pool.take_kept(ticket.number, own)
        if shared:
            self.pool.hold_prefix(ticket.request.prefix, shared)
        ticket.shared = shared
        ticket.computed = (shared + own) * self.policy.block
        if ticket.entered_s < 0:
            ticket.entered_s, ticket.cached = now, ticket.computed
        self._turns += 1
        ticket.turn = self._turns
        self.running[ticket.number] = ticket

    def _join(self, step: Step, ticket: Ticket) -> None:
        """Let a request answer whose prompt has entered on another engine."""
        ticket.computed, ticket.brought = ticket.brought, 0
        self.pool.take(self.policy.blocks_of(ticket.computed))
        self._under_way(ticket)
        if self.policy.mixed:  # the others have their blocks for this step
            self.pool.take(self._blocks_more(ticket.computed, 1))
            step.decodes += 1
            step.context += ticket.computed + 1
            self._decoded = True

    def _encode(self, step: Step, ticket: Ticket) -> None:
        """Have the encoder make tokens of an image, unless its cache holds them."""
        if ticket.stops:
            return  # it was done when it entered first
        step.work_s += ticket.request.work_s
        image, tokens = ticket.request.image, ticket.request.image_tokens
        if not image:
            return
        if image in self._images:
            self._images.move_to_end(image)
            return
        step.images.append(tokens)
        if tokens > self.policy.encoder_tokens:
            return
        self._images[image] = tokens
        self._image_tokens += tokens
        while self._image_tokens > self.policy.encoder_tokens:
            self._image_tokens -= self._images.popitem(last=False)[1]

    def _chunk(self, step: Step, ticket: Ticket, new: int) -> None:
        self._entering[ticket.number] = ticket
        self._chunks.append(_Chunk(ticket, new))
        step.prompts.append((new, ticket.computed))
        step.finished_prompts += ticket.computed + new == ticket.target

    def _blocks_more(self, computed: int, new: int) -> int:
        return self.policy.blocks_of(computed + new) - self.policy.blocks_of(computed)

    def _stop(self) -> None:
        """Stop the request that entered last.

        A prompt that is still entering is always that one, so no request under way is stopped once
        the blocks of a step were taken for it.
        """
        _, ticket = self.running.popitem()
        if ticket.answers:
            ticket.made += self.ticks - ticket.since
            ticket.computed += self.ticks - ticket.since
            self._leave(ticket)
        self._entering.pop(ticket.number, None)
        ticket.stops += 1
        self._release(ticket)
        self.waiting.appendleft(ticket)

    def _leave(self, ticket: Ticket) -> None:
        """Count a request no longer among those under way; `computed` must be what it is now."""
        self._residues[(self.ticks - ticket.computed) % self.policy.block] -= 1
        self.answering -= 1
        self.context -= ticket.computed
        ticket.since = -1

    def _release(self, ticket: Ticket) -> None:
        """Let go of a request's blocks."""
        again = ticket.made < ticket.request.output  # only then will anyone look for them
        whole = ticket.computed // self.policy.block - ticket.shared if again else 0
        held = self.policy.blocks_of(ticket.computed) - ticket.shared
        self.pool.give(held, ticket.number, whole)
        if ticket.shared:
            self.pool.let_go_prefix(ticket.request.prefix, ticket.shared)
        ticket.computed, ticket.shared, ticket.beyond = 0, 0, ticket.shared

    def finish(self, now: float) -> list[Ticket]:
        """Do what the planned step does; return the requests that are answered with it."""
        if self._decoded:
            self.ticks += 1
            self.context += self.answering
        done: list[Ticket] = []
        while self._ends and self._ends[0][0] <= self.ticks:
            _, turn, ticket = heapq.heappop(self._ends)
            if ticket.since < 0 or ticket.turn != turn:
                continue  # stopped since then
            ticket.computed += self.ticks - ticket.since
            ticket.made = ticket.request.output
            self._leave(ticket)
            done.append(ticket)
        for chunk in self._chunks:  # these entered after those under way
            ticket = chunk.ticket
            ticket.computed += chunk.new
            if ticket.computed == ticket.target:
                self._answer(ticket, now)
                if ticket.made == ticket.request.output:
                    done.append(ticket)
        for ticket in done:
            ticket.done_s = now
            del self.running[ticket.number]
            self._release(ticket)
        return done

    def _answer(self, ticket: Ticket, now: float) -> None:
        """Give a token to a request whose prompt has entered."""
        ticket.made += 1
        if ticket.first_s < 0:
            ticket.first_s = now
        self._entering.pop(ticket.number)
        self._publish(ticket)
        if ticket.made < ticket.request.output:
            self._under_way(ticket)

    def _under_way(self, ticket: Ticket) -> None:
        """Count a request among those under way."""
        ticket.since = self.ticks
        self.answering += 1
        self.context += ticket.computed
        self._residues[(self.ticks - ticket.computed) % self.policy.block] += 1
        end = self.ticks + ticket.request.output - ticket.made
        heapq.heappush(self._ends, (end, ticket.turn, ticket))

    def _publish(self, ticket: Ticket) -> None:
        """Let others find the prefix that a request has computed."""
        blocks = ticket.request.prefix_tokens // self.policy.block
        if blocks and self.pool.publish_prefix(ticket.request.prefix, blocks, ticket.shared):
            ticket.shared = blocks
