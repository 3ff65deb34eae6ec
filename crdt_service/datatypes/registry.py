"""All data types, with their tags and versions, in one place."""

from typing import Any

from crdt_service.datatypes.aw_set import AwSet
from crdt_service.datatypes.contract import Datatype
from crdt_service.datatypes.document import Document
from crdt_service.datatypes.dotted import Dotted
from crdt_service.datatypes.ew_flag import EwFlag
from crdt_service.datatypes.field import GCounterField, GSetField, LwwRegisterField, PnCounterField
from crdt_service.datatypes.g_counter import GCounter
from crdt_service.datatypes.g_set import GSet
from crdt_service.datatypes.graph import Graph
from crdt_service.datatypes.lww_register import LwwRegister
from crdt_service.datatypes.map import Map
from crdt_service.datatypes.mv_register import MvRegister
from crdt_service.datatypes.pn_counter import PnCounter
from crdt_service.datatypes.receipts import Receipts
from crdt_service.datatypes.time_series import TimeSeries
from crdt_service.datatypes.workflow import Workflow
from crdt_service.kernel.error import MalformedError, OperationError

_FIELDS: tuple[Dotted, ...] = (
    PnCounterField(),
    LwwRegisterField(),
    AwSet(),
    GCounterField(),
    GSetField(),
    EwFlag(),
    MvRegister(),
    Workflow(),
)
DATATYPES: tuple[Datatype[Any], ...] = (
    PnCounter(),
    LwwRegister(),
    AwSet(),
    GCounter(),
    GSet(),
    EwFlag(),
    MvRegister(),
    Map(_FIELDS),
    TimeSeries(),
    Graph(),
    Workflow(),
    Document(),
)
# In the store beside what the API shows, and never shown itself.
RECEIPTS = Receipts()
_BY_NAME = {datatype.name: datatype for datatype in DATATYPES}
_BY_TAG: dict[int, Datatype[Any]] = {datatype.tag: datatype for datatype in (*DATATYPES, RECEIPTS)}


def find_type(name: str) -> Datatype[Any]:
    """Return the type of an API name.

    Raises:
        OperationError: There is none; code ``unknown_type``.
    """
    if name not in _BY_NAME:
        raise OperationError(f"unknown type {name[:64]!r}", f"use one of {', '.join(_BY_NAME)}", "unknown_type")
    return _BY_NAME[name]


def is_repeatable(name: str) -> bool:
    """Tell whether any operation of the type of an API name may be applied twice without another effect."""
    return name in _BY_NAME and _BY_NAME[name].is_repeatable


def get_type(tag: int, version: int | None = None) -> Datatype[Any]:
    """Return the type of a wire tag; `version`, if given, must be one that this program reads.

    Raises:
        MalformedError: There is none.
    """
    datatype = _BY_TAG.get(tag)
    if datatype is None or version not in (None, datatype.version):
        raise MalformedError(f"no data type has tag {tag} in version {version}")
    return datatype
