"""Run the command line as `python -m nnclr_study`."""

import sys

from nnclr_study.cli import main

if __name__ == "__main__":
    sys.exit(main())
