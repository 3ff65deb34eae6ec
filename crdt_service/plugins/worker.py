"""The process of one plugin: ``python -m crdt_service.plugins.worker FD``, which its parent starts.

It loads the plugin within limits of memory and files, and answers calls one at a time until its parent is gone.
"""

import ctypes
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from crdt_service.kernel.error import MalformedError
from crdt_service.plugins.hook import Hooks, Refusal, Reply, Request
from crdt_service.plugins.load import bind, load
from crdt_service.plugins.message import (
    Answer,
    Call,
    Configure,
    Failed,
    Page,
    PassValues,
    PassWrites,
    Pipe,
    Ready,
    Refused,
    Serve,
    Served,
    Tell,
    Texts,
    answer_decoder,
    call_decoder,
    encode,
    shorten,
)

# Enough for a plugin that talks to a few services; a leak of them fails soon.
_FILES_MAX = 128
_PR_SET_PDEATHSIG = 1
_HOOKS = tuple(name for name, member in vars(Hooks).items() if callable(member))
_encoder = msgspec.json.Encoder()


class Plugin:
    """A loaded plugin behind the calls that its parent makes."""

    def __init__(self, implementation: object, settings: Mapping[str, Any]) -> None:
        self._hook = bind(implementation)
        self.hooks = tuple(name for name in _HOOKS if getattr(self._hook, name).get_hookimpls())
        if not self.hooks:
            raise TypeError("the plugin implements no hook")
        self._hook.configure(settings=settings)
        self._endpoints = {(each.method, each.path): each for each in self._hook.endpoints() or ()}
        self._validates = "validate_write" in self.hooks
        self._transforms = "transform_write" in self.hooks
        self._answers: dict[type[Call], Callable[[Any], Answer]] = {
            PassWrites: self._pass_writes,
            PassValues: self._pass_values,
            Tell: self._tell,
            Serve: self._serve,
        }

    def describe(self) -> Ready:
        """Return what it implements."""
        pages = tuple(
            Page(
                each.method,
                each.path,
                each.sentence,
                each.access,
                dict(each.parameters or {}),
                tuple(each.keys),
                each.narrows,
            )
            for each in self._endpoints.values()
        )
        for page in pages:
            if unknown := set(page.keys) - page.parameters.keys():
                raise ValueError(f"{page.path}: keys {sorted(unknown)} are no parameters")
        ready = Ready(self.hooks, pages)
        answer_decoder.decode(msgspec.msgpack.encode(ready))  # So that who wrote it is told what is wrong.
        return ready

    def answer(self, call: Call) -> Answer:
        """Return the answer to a call; never raises but for want of memory or to end."""
        try:
            return self._answers[type(call)](call)
        except Refusal as refusal:
            return Refused(shorten(refusal))
        except MemoryError:
            raise
        except Exception as error:
            traceback.print_exc()
            return Failed(shorten(f"{type(error).__name__}: {error}"))

    def _pass_writes(self, call: PassWrites) -> Texts:
        texts, refusals = [], {}
        for place, write in enumerate(call.writes):
            op, changed = msgspec.json.decode(write.op), None
            try:
                if self._validates:
                    self._hook.validate_write(key=write.key, type_name=write.type_name, op=op, caller=call.caller)
                if self._transforms:
                    changed = self._hook.transform_write(
                        key=write.key, type_name=write.type_name, op=op, caller=call.caller
                    )
            except Refusal as refusal:
                refusals[place] = shorten(refusal)
            texts.append(b"" if changed is None else _encoder.encode(changed))
        return Texts(tuple(texts), refusals)

    def _pass_values(self, call: PassValues) -> Texts:
        texts = []
        for value in call.values:
            shown = msgspec.json.decode(value.text)
            changed = self._hook.transform_read(key=value.key, type_name=value.type_name, value=shown)
            texts.append(b"" if changed is None else _encoder.encode(changed))
        return Texts(tuple(texts))

    def _tell(self, call: Tell) -> Texts:
        for change in call.changes:
            self._hook.on_change(change=msgspec.json.decode(change))
        return Texts(())

    def _serve(self, call: Serve) -> Served:
        body = msgspec.json.decode(call.body) if call.body else None
        reply = self._endpoints[call.method, call.path].answer(Request(call.query, body, call.caller))
        if not isinstance(reply, Reply):
            reply = Reply(reply)
        return Served(reply.status, _encoder.encode(reply.body))


def _limit(memory_bytes: int) -> None:
    """Bound what the plugin may take from others, and end with the parent whatever the plugin does."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES_MAX, _FILES_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(2, 1)  # What a plugin prints belongs to the log.


def _start(call: Configure) -> tuple[Plugin | None, Answer]:
    try:
        plugin = Plugin(load(call.name, call.directory), msgspec.json.decode(call.settings))
        return plugin, plugin.describe()
    except Exception as error:
        traceback.print_exc()
        return None, Failed(shorten(f"{type(error).__name__}: {error}"), is_fatal=True)


def _reply(pipe: Pipe, answer: Answer) -> None:
    try:
        frame = encode(answer)
    except MalformedError as error:
        frame = encode(Failed(shorten(error.message)))
    pipe.send(frame)


def main(descriptor: int) -> int:
    """Serve the parent at the other end of a socket; return 0 once it is gone, 1 if the plugin cannot go on."""
    pipe = Pipe(socket.socket(fileno=descriptor))
    body = pipe.receive()
    if body is None:
        return 0
    first: Configure = call_decoder.decode(body)
    _limit(first.memory_bytes)
    plugin, answer = _start(first)
    _reply(pipe, answer)
    if plugin is None:
        return 1
    spare = bytearray(1 << 20)  # Given back when the memory is at its end, so that there is some to say so.
    try:
        while (body := pipe.receive()) is not None:
            _reply(pipe, plugin.answer(call_decoder.decode(body)))
    except MemoryError:
        del spare, plugin
        _reply(pipe, Failed("MemoryError: the plugin takes more than its memory_mib", is_fatal=True))
        return 1
    return 0


if __name__ == "__main__":
    status = main(int(sys.argv[1]))
    sys.stderr.flush()
    os._exit(status)  # Threads of the plugin do not hold the process.
