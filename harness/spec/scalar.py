"""Plain scalars of YAML as Helm reads them, which is neither YAML 1.1 nor 1.2.

Helm's reader is sigs.k8s.io/yaml, whose rules are those of `resolve` in go-yaml 2 (resolve.go): the words of YAML 1.1
with `y` and `n`, integers as Go's `strconv.ParseInt` takes them in any base, other decimals as floating point, dates
and base 60 as text. Values are JSON from there on, so a number is a float64.
"""

import math
import re
from decimal import Decimal
from typing import Final

Scalar = None | bool | int | float | str

DIGITS_MAX: Final = 40
_INTEGER_MAX: Final = 1 << 53
_WORDS: Final[dict[str, Scalar]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **{sign + word: float(sign + "inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
_BASES: Final = (
    (re.compile(r"[-+]?0[xX][0-9a-fA-F]+"), 16),
    (re.compile(r"[-+]?0[oO]?[0-7]+"), 8),
    (re.compile(r"[-+]?0[bB][01]+"), 2),
    (re.compile(r"[-+]?(0|[1-9][0-9]*)"), 10),
)
_DECIMAL: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_STRAY: Final = re.compile(r"(?<![0-9])_|_(?![0-9])")
_RANGE: Final = range(-(1 << 63), 1 << 64)


class ScalarError(ValueError):
    """A plain scalar that has no value in JSON, or loses digits in it; the message says which."""


def read_scalar(text: str) -> Scalar:
    """Return what Helm makes of a plain scalar; a number without a fraction is an integer, as it is in JSON.

    Raises:
        ScalarError: It is a number that JSON lacks, one of too many digits, or one that would lose some.
    """
    if text in _WORDS:
        word = _WORDS[text]
        if isinstance(word, float):
            raise ScalarError("not a value that JSON knows: put it in quotes")
        return word
    # What may be a number begins as one; in one that begins with a point, underscores stand between digits alone.
    if not text.startswith(tuple("+-.0123456789")) or (text.startswith(".") and _STRAY.search(text)):
        return text
    plain = text.replace("_", "")
    if len(plain) > DIGITS_MAX:
        if _DECIMAL.fullmatch(plain) or any(form.fullmatch(plain) for form, _ in _BASES):
            raise ScalarError(f"a number of more than {DIGITS_MAX} digits: put it in quotes")
        return text
    whole = _read_integer(plain)
    if whole is not None:
        if abs(whole) > _INTEGER_MAX:
            raise ScalarError("a whole number beyond 2^53, which would lose digits: put it in quotes")
        return whole
    number = float(plain) if _DECIMAL.fullmatch(plain) else math.inf
    if math.isinf(number):
        return text
    if Decimal(repr(number)) != Decimal(plain):
        raise ScalarError("a number that would lose digits: put it in quotes")
    return int(number) if number.is_integer() and abs(number) <= _INTEGER_MAX else number


def _read_integer(text: str) -> int | None:
    """Return an integer of any base in 64 bits, None for none."""
    for form, base in _BASES:
        if form.fullmatch(text):
            number = int(re.sub(r"^([-+]?)0[xXoObB]", r"\1", text), base)
            # A number with a sign is never unsigned.
            return number if number in _RANGE and (number < 1 << 63 or text[0] != "+") else None
    return None
