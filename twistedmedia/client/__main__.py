"""`python -m twistedmedia.client` is the command `twistedmedia`."""

import sys

from twistedmedia.client.command.main import main

if __name__ == "__main__":
    sys.exit(main())
