"""Tells a person what long work is doing and how long it has to go; writes lines to stderr and nothing else."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console

_HEARTBEAT_SECONDS: Final = 20.0


class Progress:
    """Lines of progress, each stamped with the minutes and seconds since the start.

    Args:
        console: Where lines go; colour and width are its business.
        clock: Monotonic seconds.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._clock = clock
        self._start = clock()
        self._lock = threading.Lock()

    def elapsed_seconds(self) -> float:
        """Seconds since this progress began."""
        return self._clock() - self._start

    def say(self, text: str, style: str = "") -> None:
        """Write one line."""
        minutes, seconds = divmod(int(self.elapsed_seconds()), 60)
        with self._lock:
            self._console.print(f"[dim]{minutes:3d}:{seconds:02d}[/dim]  ", end="")
            self._console.print(text, style=style, markup=False)

    @contextmanager
    def step(self, text: str, expected_seconds: float | None = None) -> Iterator[None]:
        """Announce a step, say regularly that it still runs, and say how long it took.

        Args:
            text: What is being done.
            expected_seconds: How long it took when it was measured; gives the time left.
        """
        self.say(text + (f" (about {_span(expected_seconds)})" if expected_seconds else ""))
        start = self._clock()
        over = threading.Event()

        def beat() -> None:
            while not over.wait(_HEARTBEAT_SECONDS):
                taken = self._clock() - start
                left = (expected_seconds or 0) - taken
                rest = f", about {_span(left)} left" if left > 0 else ""
                self.say(f"  … {text}: {_span(taken)} so far{rest}", style="dim")

        heartbeat = threading.Thread(target=beat, daemon=True)
        heartbeat.start()
        try:
            yield
        except BaseException:
            self.say(f"✗ {text}: failed after {_span(self._clock() - start)}", style="red")
            raise
        else:
            self.say(f"✓ {text}: {_span(self._clock() - start)}", style="green")
        finally:
            over.set()
            heartbeat.join()


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
