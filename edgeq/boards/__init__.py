"""Board profiles: `boards/<id>.toml` -> Board."""

from edgeq.boards.catalogue import board_of_model, list_boards, load_board, load_board_file
from edgeq.boards.profile import Board

__all__ = ["Board", "board_of_model", "list_boards", "load_board", "load_board_file"]
