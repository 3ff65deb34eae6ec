"""What the dashboards show, one module for each."""

from harness.dashboard.board import Board
from harness.dashboard.content import api, cluster, crdt, system

BOARDS: tuple[Board, ...] = (cluster.BOARD, crdt.BOARD, api.BOARD, system.BOARD)
