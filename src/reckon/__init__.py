"""reckon: what should the reward be, and what did it buy you?

Import from the rooms (`from reckon.train import train`): one room does not load another.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
