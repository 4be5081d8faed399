"""The names of `errors`, `terminal`, `results`, `outputs` and `program` in one place."""

from .errors import *  # noqa: F403
from .outputs import *  # noqa: F403
from .program import *  # noqa: F403
from .results import *  # noqa: F403
from .terminal import *  # noqa: F403
