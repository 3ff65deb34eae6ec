"""Kubernetes' resource quantities, such as `500m`, `2Gi` or `1e3`."""

import math
import re
from decimal import Decimal
from typing import Final

# Far above what any machine has, and below what takes time to read.
_CHARACTERS_MAX: Final = 40
_FORM: Final = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?)([numkMGTPE]|[KMGTPE]i)?")
_SUFFIX: Final = {
    "": Decimal(1),
    "n": Decimal(10) ** -9,
    "u": Decimal(10) ** -6,
    "m": Decimal(10) ** -3,
    "k": Decimal(10) ** 3,
    "M": Decimal(10) ** 6,
    "G": Decimal(10) ** 9,
    "T": Decimal(10) ** 12,
    "P": Decimal(10) ** 15,
    "E": Decimal(10) ** 18,
    "Ki": Decimal(2) ** 10,
    "Mi": Decimal(2) ** 20,
    "Gi": Decimal(2) ** 30,
    "Ti": Decimal(2) ** 40,
    "Pi": Decimal(2) ** 50,
    "Ei": Decimal(2) ** 60,
}


def read_quantity(text: str | float) -> float:
    """Return a quantity in its base unit: cores for cpu, bytes for memory and storage.

    Raises:
        ValueError: It is not a quantity, or longer than 40 characters.
    """
    written = text.strip() if isinstance(text, str) else repr(text)
    form = _FORM.fullmatch(written) if len(written) <= _CHARACTERS_MAX else None
    amount = math.nan if form is None else float(Decimal(form[1]) * _SUFFIX[form[2] or ""])
    if not math.isfinite(amount):
        raise ValueError(f"not a quantity: {written[:_CHARACTERS_MAX]!r}")
    return amount
