"""Kubernetes' resource quantities, such as `500m`, `2Gi` or `1e3`."""

from decimal import Decimal, InvalidOperation

_SUFFIX = {
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
        ValueError: It is not a quantity.
    """
    written = str(text).strip()
    number = written.rstrip("numkMGTPEKi")
    suffix = written[len(number) :]
    try:
        return float(Decimal(number) * _SUFFIX[suffix]) if suffix else float(Decimal(number))
    except (InvalidOperation, KeyError):
        raise ValueError(f"not a quantity: {text!r}") from None
