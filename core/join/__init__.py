"""From observations to events: identity first, then the merge of what was seen of one attempt.

Pure: no journal, no clock, no I/O. `identify` says which observations speak of which event and how
far each may speak; `merge` makes one set of facts of them.
"""

from costspan.core.join.identity import Identified, identify
from costspan.core.join.merge import Event, disagreements, merge

__all__ = ["Event", "Identified", "disagreements", "identify", "merge"]
