"""`python -m costspan`: the command line."""

from costspan.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
