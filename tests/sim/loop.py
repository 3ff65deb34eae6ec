"""An asyncio event loop in virtual time: when nothing is ready it jumps to the next timer, and no thread ever runs."""

import asyncio


class _Selector:
    def __init__(self, loop):
        self._loop = loop

    def select(self, timeout):
        if timeout is None:
            raise RuntimeError("nothing is ready and no timer is set: the simulation waits for ever")
        if timeout > 0:
            self._loop.advance(timeout)
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """`execute(function)` runs what the code hands to a thread and returns the future of its result."""

    def __init__(self, execute):
        super().__init__()
        self._now = 0.0
        self._clock_resolution = 1e-9
        self._selector = _Selector(self)
        self._execute = execute

    def time(self):
        return self._now

    def advance(self, seconds):
        self._now += seconds

    def run_in_executor(self, executor, func, *args):
        return self._execute(lambda: func(*args))

    def _process_events(self, event_list):
        pass

    def _write_to_self(self):
        pass
