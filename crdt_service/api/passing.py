"""What nodes answered on its way through the plugins to who asked."""

from collections.abc import Sequence

from msgspec.structs import replace

from crdt_service.api.many import Answer, Outcome
from crdt_service.kernel.error import ServiceError
from crdt_service.plugins.host import Plugins
from crdt_service.plugins.message import Value


async def pass_answer(plugins: Plugins, key: str, answer: Answer, *, is_done: bool = False) -> Answer:
    """Return an answer with the value as plugins have it shown.

    Args:
        plugins: What values pass.
        key: Whose value it is.
        answer: The node and its reply.
        is_done: Whether it answers a write: that is done, so it is no error that its value cannot be shown.

    Raises:
        ServiceError: A required plugin is not there.
    """
    node_id, reply = answer
    if not plugins.passes_values or not reply.value:
        return answer
    try:
        (passed,) = await plugins.pass_values([Value(key, reply.type_name, reply.value)])
    except ServiceError:
        if not is_done:
            raise
        return node_id, replace(reply, value=b"")
    return node_id, replace(reply, value=passed.text)


async def pass_outcomes(
    plugins: Plugins, keys: Sequence[str], outcomes: list[Outcome], *, is_done: bool = False
) -> list[Outcome]:
    """Return what became of many keys, with the values as plugins have them shown; otherwise as `pass_answer`."""
    if not plugins.passes_values:
        return outcomes
    places: list[int] = []
    values: list[Value] = []
    for place, outcome in enumerate(outcomes):
        if not isinstance(outcome, ServiceError) and outcome[1].value:
            places.append(place)
            values.append(Value(keys[place], outcome[1].type_name, outcome[1].value))
    try:
        passed = await plugins.pass_values(values) if values else []
    except ServiceError:
        if not is_done:
            raise
        passed = [Value(value.key, value.type_name, b"") for value in values]
    shown = list(outcomes)
    for place, value in zip(places, passed, strict=True):
        outcome = outcomes[place]
        if not isinstance(outcome, ServiceError):
            shown[place] = (outcome[0], replace(outcome[1], value=value.text))
    return shown
