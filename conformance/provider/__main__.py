"""``python -m costspan.conformance.provider``."""

import sys

from costspan.conformance.provider.command import main

sys.exit(main(sys.argv[1:]))
