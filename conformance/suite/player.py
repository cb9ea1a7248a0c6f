"""One tenant's play of a script, step by step."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import count
from typing import Any

import msgspec

import costspan
from costspan.adapter import evidence
from costspan.conformance.suite.driver import AgentAsk, Ask, Driver, Messages, Reply, Who
from costspan.conformance.suite.prompts import Prompts, assistant
from costspan.conformance.suite.raised import lost_connection, told
from costspan.conformance.suite.script import (
    Agent,
    Background,
    Batch,
    Call,
    Mode,
    Owner,
    Remote,
    Retrieval,
    Step,
    Together,
    Tool,
    ToolStep,
    Work,
)
from costspan.conformance.suite.threads import blocking, drive, driven

WAIT_SECONDS = 60.0
TURNS_MAX = 12


class Played:
    """What came of a play, beside the books.

    Attributes:
        problems: What the host did that the script did not ask for, in words.
        left: Cases whose reader left before the end: their usage need not have reached it.
        lost: Connections to the provider that broke though the script did not ask for it, in words.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.left: set[str] = set()
        self.lost: list[str] = []


class Player:
    """One tenant's play of a script."""

    def __init__(
        self,
        driver: Driver,
        mode: Mode,
        tenant: str,
        factor: int,
        played: Played,
    ) -> None:
        self._driver = driver
        self._is_async = mode == "async"
        self._tenant = tenant
        self._says = Prompts(tenant, factor)
        self._played = played
        self._who = Who(tenant, f"{tenant}-session")
        self._outliving: list[Future[None]] = []
        self._over: Future[None] = Future()
        self._pool = None if self._is_async else ThreadPoolExecutor(2)
        if self._pool is not None:  # Warm before any request: its threads know nobody's context.
            list(self._pool.map(str, range(2)))

    async def play(self, script: tuple[Step, ...]) -> None:
        """Play the script as the tenant, and wait for what outlives it."""
        try:
            await self._run_as(self._who, lambda: self._steps(script, self._who))
        finally:
            self._over.set_result(None)
        for job in self._outliving:  # on whatever loop they run
            if self._is_async:
                await asyncio.wait_for(asyncio.wrap_future(job), WAIT_SECONDS)
            else:
                job.result(WAIT_SECONDS)
        if self._pool is not None:
            self._pool.shutdown()

    async def _run_as(self, who: Who, body: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._is_async:
            await self._driver.aserve(who, body)
        else:
            self._driver.serve(who, lambda: drive(body()))

    async def _steps(self, steps: tuple[Step, ...], who: Who) -> None:
        for step in steps:
            await self._step(step, who)

    async def _step(self, step: Step, who: Who) -> None:
        match step:
            case Call():
                for _ in range(step.repeat):
                    await self._call(step, who)
            case Agent():
                await self._agent(step, who)
            case Work():
                with costspan.work(step.cause, step.initiator):  # type: ignore[arg-type]  # a file may name any cause
                    await self._steps(step.steps, who)
            case ToolStep():
                await self._tool(step, who)
            case Retrieval():
                body = self._body(step.steps, who)
                if self._is_async:
                    await self._driver.aretrieve(body)
                else:
                    self._driver.retrieve(lambda: drive(body()))
            case Together():
                await self._together(step, who)
            case Background():
                self._background(step, who)
            case Owner():
                await self._owner(step, who)
            case Remote():
                await self._remote(step, who)
            case Batch():
                await self._batch(step)

    def _body(self, steps: tuple[Step, ...], who: Who) -> Callable[[], Coroutine[Any, Any, None]]:
        return lambda: self._steps(steps, who)

    async def _batch(self, batch: Batch) -> None:
        """A job of one tenant, or of several: only the application knows whose each line is."""
        owners = [tenant.replace("$tenant", self._tenant) for tenant, _ in batch.lines]
        lines = [
            self._says.messages(says, "line", owner)
            for owner, (_, says) in zip(owners, batch.lines, strict=True)
        ]
        driver = self._driver
        done = await driver.abatch(batch, lines) if self._is_async else driver.batch(batch, lines)
        if len(set(owners)) > 1:
            members: Counter[str] = Counter()
            for owner, tokens in zip(owners, done.tokens, strict=True):
                members[owner] += tokens
            evidence(operation_ids=(f"batch:{done.id}",), members=dict(members), layer="manual")

    # Calls

    async def _call(self, call: Call, who: Who) -> None:
        case, messages = self._says.of_call(call, who.tenant, self._driver.provider)
        if call.leave is not None or call.cancel:
            self._played.left.add(case)
        ask = Ask(call, messages, who, piece=self._leaving(call))
        error: BaseException | None = None
        try:
            reply = await self._ask(ask, case)
            if call.verdict is not None:
                named = {"response_id": reply.response_id, "operation_ids": reply.operation_id}
                evidence(**named, delivery=call.verdict, layer="manual")
        except (Exception, asyncio.CancelledError) as raised:
            error = raised
        if call.raises and error is None:
            self._problem(f"{call.label}: the host's exception never reached its caller")
        if not call.raises and error is not None and not _expected(call, error):
            self._raised(call.label, error)

    async def _ask(self, ask: Ask, case: str) -> Reply:
        if not self._is_async:
            return self._driver.ask(ask)
        leaves = ask.call.cancel or ask.call.hang_up
        if not leaves and (ask.call.leave is None or ask.call.leave.how != "cancel"):
            return await self._driver.aask(ask)
        asking = asyncio.create_task(self._driver.aask(ask))
        if leaves:
            seen = await asyncio.to_thread(self._driver.provider.wait_case, case, WAIT_SECONDS)
            if not seen:
                self._problem(f"{ask.call.label}: the request never reached the provider")
            self._driver.leave(asking)
        return await asking

    def _leaving(self, call: Call) -> Callable[[], bool]:
        """Counts the pieces of a stream; says when the reader leaves, or cancels it there."""
        leave, pieces = call.leave, count(1)

        def piece() -> bool:
            if leave is None or next(pieces) != leave.after:
                return False
            if leave.how != "cancel":
                return True
            task = asyncio.current_task()
            assert task is not None
            self._driver.leave(task)
            return False

        return piece

    # Agents and tools

    async def _agent(self, agent: Agent, who: Who) -> None:
        prompt, summary = self._says.of_agent(agent, who.tenant)
        if not self._driver.has_agents:
            await self._loop(agent, prompt, who)
            return

        def tool_of(name: str, tool: Tool) -> Callable[[str], Coroutine[Any, Any, str]]:
            async def run(_: str) -> str:
                return await self._use(name, tool, who)

            return run

        atools = {name: tool_of(name, tool) for name, tool in agent.tools.items()}
        tools = {name: blocking(run) for name, run in atools.items()}
        ask = AgentAsk(agent, prompt, summary, who, tools, atools)
        try:
            if self._is_async:
                await self._driver.arun_agent(ask)
            else:
                self._driver.run_agent(ask)
        except Exception as error:
            self._raised(agent.name, error)

    async def _loop(self, agent: Agent, prompt: str, who: Who) -> None:
        """The loop that a host without an agent framework writes by hand."""
        messages: Messages = [{"role": "user", "content": prompt}]
        plain = Call(model=agent.model, label=agent.name, stream=agent.stream)
        forced = msgspec.structs.replace(plain, structured=agent.structured)
        for turn in range(1, TURNS_MAX + 1):
            call = forced if turn == len(agent.turns) else plain
            ask = Ask(call, list(messages), who, tuple(agent.tools), self._leaving(call))
            reply = await self._driver.aask(ask) if self._is_async else self._driver.ask(ask)
            if not reply.tool_calls or call.structured:
                return
            messages.append(assistant(reply))
            for wanted in reply.tool_calls:
                try:
                    result = await self._use(wanted.name, agent.tools[wanted.name], who, paid=True)
                except ToolBroke:
                    result = "failed"
                messages.append({"role": "tool", "tool_call_id": wanted.id, "content": result})
        self._problem(f"{agent.name}: no answer after {TURNS_MAX} turns")

    async def _use(self, name: str, tool: Tool, who: Who, *, paid: bool = False) -> str:
        """Run an agent's tool; a framework meters the run itself, but not what it costs."""
        if tool.cost is None and not paid:
            await self._run_tool(tool, who)
        else:
            with costspan.tool(name, cost=self._says.money(tool.cost)):
                await self._run_tool(tool, who)
        return f"{name} found three pages"

    async def _run_tool(self, tool: Tool | ToolStep, who: Who) -> None:
        await self._steps(tool.steps, who)
        if tool.raises:
            raise ToolBroke

    async def _tool(self, step: ToolStep, who: Who) -> None:
        try:
            with costspan.tool(step.name, cost=self._says.money(step.cost)):
                await self._run_tool(step, who)
        except ToolBroke:
            return
        if step.raises:
            self._problem(f"{step.name}: the tool's own exception never reached its caller")

    # Side by side, later, for others

    async def _together(self, step: Together, who: Who) -> None:
        bodies = [self._body(branch, who) for branch in step.branches]
        if self._is_async:
            await self._driver.atogether(bodies)
        else:
            self._driver.together([partial(driven, body) for body in bodies])

    def _background(self, step: Background, who: Who) -> None:
        """What outlives the request starts when it has ended, unless the host says when."""
        body = self._body(step.steps, who)
        if self._pool is None:
            job = self._driver.alater(body)
            loop = asyncio.get_running_loop()  # a host's own, perhaps: who waits is on another
            job = job or asyncio.run_coroutine_threadsafe(self._afterwards(body), loop)
        else:
            job = self._driver.later(partial(driven, body))
            job = job or self._pool.submit(costspan.carry(self._after), body)
        self._outliving.append(job)

    def _after(self, body: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._over.result(WAIT_SECONDS)
        drive(body())

    async def _afterwards(self, body: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await asyncio.wrap_future(self._over)
        await body()

    async def _owner(self, step: Owner, who: Who) -> None:
        if step.detached:
            with costspan.detached():
                await self._steps(step.steps, Who(None))
            return
        tenant, session = (
            None if name is None else name.replace("$tenant", self._tenant)
            for name in (step.tenant, step.session)
        )
        there = who if step.refused else Who(tenant or who.tenant, session or who.session)
        with costspan.attribute(tenant, session=session):
            await self._steps(step.steps, there)

    async def _remote(self, step: Remote, who: Who) -> None:
        there = Who(None) if step.arrives else who
        if step.replayed_by is not None:
            there = Who(step.replayed_by, f"{step.replayed_by}-session")
        body = self._body(step.steps, there)
        if self._is_async:
            await self._driver.aremote(step, there, body)
        else:
            self._driver.remote(step, there, lambda: drive(body()))

    def _raised(self, label: str, error: BaseException) -> None:
        """The host raised what the script did not ask for."""
        if lost := lost_connection(error):
            self._played.lost.append(f"{self._tenant}: {label}: {lost}")
        self._problem(f"{label}: the host raised {told(error)}" + (f", of {lost}" if lost else ""))

    def _problem(self, text: str) -> None:
        self._played.problems.append(f"{self._tenant}: {text}")


class ToolBroke(Exception):
    """What a tool raises that fails."""


def _expected(call: Call, error: BaseException) -> bool:
    """Whether the script itself asked for this: a cancelled task, a reader that left."""
    leaves = call.leave is not None and call.leave.how == "cancel"
    return isinstance(error, asyncio.CancelledError) and (call.cancel or call.hang_up or leaves)
