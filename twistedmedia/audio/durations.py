"""How long a recording is, and how much of it is missing, in words.

Pure.
"""

from __future__ import annotations


def cut_off(declared_s: float, came_s: float) -> str:
    """That less came than was declared, for people: "header says 10:00, data ends at 4:12"."""
    declared = came = ""
    for digits in (0, 3, 6, 9):
        declared, came = _clock(declared_s, digits), _clock(came_s, digits)
        if declared != came:
            break
    return f"header says {declared}, data ends at {came}"


def _clock(seconds: float, digits: int) -> str:
    # Rounded down: what lasts 4:12.9 has not come to 4:13.
    units = int(seconds * 10**digits)
    whole, rest = divmod(units, 10**digits)
    minutes, seconds_left = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02}:{seconds_left:02}" if hours else f"{minutes}:{seconds_left:02}"
    return f"{clock}.{rest:0{digits}}" if digits else clock
