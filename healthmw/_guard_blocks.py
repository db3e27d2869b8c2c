"""The `with` blocks of a guard: which one is left, whatever context, task or thread leaves it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from healthmw._loop import current_task, is_over

if TYPE_CHECKING:
    import anyio

    from healthmw._guard_gate import Call


class Block:
    """A `with` block that is being run, the blocks around it, and the task that it is run in."""

    __slots__ = ("blocks", "call", "inside", "outer", "scope", "task", "token")

    def __init__(self, blocks: Blocks, call: Call, outer: Block | None) -> None:
        self.blocks = blocks
        self.call = call
        self.outer = outer
        self.inside = True
        self.scope: anyio.CancelScope | None = None
        self.task = current_task()
        self.token: Any = None  # of the context that it was entered in


# One variable for all guards, of which an app may make one for each call: a context keeps every
# variable that was set in it. What is begun inside a block inherits it, and may outlive it.
_innermost: ContextVar[Block | None] = ContextVar("healthmw_innermost_block", default=None)


class Blocks:
    """The blocks of the guard `name` that are being run."""

    __slots__ = ("_name", "_running")

    def __init__(self, name: str) -> None:
        self._name = name
        self._running: dict[Block, bool] = {}  # the newest is the last

    def enter(self, call: Call) -> Block:
        """Begin a block in which `call` is made."""
        block = Block(self, call, _still_inside(_innermost.get()))
        self._running[block] = True
        block.token = _innermost.set(block)
        return block

    def leave(self, exception: BaseException | None) -> Block:
        """End the block that is left by `exception`, if by any.

        It is the innermost in this context, if there is one. Raises `RuntimeError` where none is.
        """
        block = innermost = _innermost.get()
        while block is not None and not (block.blocks is self and block.inside):
            block = block.outer
        if block is not None:
            try:
                _innermost.reset(block.token)
            except ValueError:  # it is inherited: another context is in it
                block = None
            else:
                block.token = None  # it holds the context, and the context may hold the block
        if block is None or not self._running.pop(block, False):
            block = self._take_elsewhere(innermost, exception)
        block.inside = False
        block.task = None
        if block.outer is not None or block is not innermost:
            block.outer = _still_inside(block.outer)
            _innermost.set(_still_inside(innermost))
        return block

    def _take_elsewhere(self, innermost: Block | None, exception: BaseException | None) -> Block:
        """Take a block that was entered in another context, as the one that is left here.

        It is inherited, from a task that has handed it on to this one. Or its task is over, or it
        has none: FastAPI enters and leaves a sync dependency that yields in threads. A generator
        that is dropped is closed anywhere, and what is inherited there need not be its own. What a
        task is in that still runs is not taken from it, unless there is no other.
        """
        inherited = []
        while innermost is not None:
            if innermost.blocks is self and innermost.inside:
                inherited.append(innermost)
            innermost = innermost.outer
        blocks = list(self._running)
        left_alone = [block for block in reversed(blocks) if not block.task or is_over(block.task)]
        if current_task() is None or isinstance(exception, GeneratorExit):
            likely = left_alone + inherited
        else:
            likely = inherited + left_alone
        if not likely and len(blocks) == 1:
            likely = blocks
        # Another thread may take one at the same time.
        taken = next((block for block in likely if self._running.pop(block, False)), None)
        if taken is None:
            raise RuntimeError(f"<Guard of {self._name!r}> is left and was not entered")
        return taken


def _still_inside(block: Block | None) -> Block | None:
    """Return the innermost of `block` and those around it that has not been left."""
    while block is not None and not block.inside:
        block = block.outer
    return block
