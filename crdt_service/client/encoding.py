"""Arguments as they are sent: values as JSON, keys and parameters as text; what has no such form is refused before."""

import math
from collections.abc import Mapping

import msgspec

from crdt_service.client.error import INVALID_ARGUMENT, ApiError


def encode_json(value: object) -> bytes:
    """Return the JSON of a value that reads back as it is; only tuples come back as lists.

    Raises:
        ApiError: JSON has no such value: NaN and infinities, bytes, sets, keys that are no text, and the like.
    """
    try:
        return msgspec.json.encode(_to_json(value, ""))
    except RecursionError:
        raise _refused("the value nests too deep, or contains itself", "send a flatter value") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise _refused(f"the value has no JSON form: {error}", "send it as text") from error


def check_text(value: object, name: str) -> str:
    """Return an argument that has to be text which UTF-8 can carry.

    Raises:
        ApiError: It is something else, or holds a lone surrogate.
    """
    if not isinstance(value, str):
        raise _refused(f"{name} is {type(value).__name__}, not text", f"give {name} as str")
    text = str.__str__(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _refused(f"{name} holds a lone surrogate, which is no character", "decode the text strictly") from None
    return text


def check_header(value: object, name: str) -> str:
    """Return an argument that is sent in a header: printable ASCII without spaces.

    Raises:
        ApiError: It is something else.
    """
    text = check_text(value, name)
    if not all("!" <= character <= "~" for character in text):
        raise _refused(f"{name} holds a character that a header cannot carry", "use printable ASCII without spaces")
    return text


def _to_json(value: object, place: str) -> object:
    """Return a value made of JSON's types alone; `place` says where it stands in what was given."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return check_text(value, f"the text{place and ' at '}{place}")
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _refused(
                f"JSON has no number for the {float(value)}{place and ' at '}{place}",
                "send null, text, or a number in its place",
            )
        return float(value)
    if isinstance(value, list | tuple):
        return [_to_json(item, f"{place}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {
            check_text(name, f"a key{place and ' of '}{place}"): _to_json(item, f"{place}.{name}" if place else name)
            for name, item in value.items()
        }
    raise _refused(
        f"JSON has no {type(value).__name__}{place and ' as at '}{place}, and it would read back as another type",
        "send text, a number, true, false, null, a list, or a dict of them",
    )


def _refused(message: str, remedy: str) -> ApiError:
    return ApiError(INVALID_ARGUMENT, message, f"{remedy}; nothing was sent")
