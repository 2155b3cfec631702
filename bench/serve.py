"""
Runs twistedmedia in this process as twistd would, with a lateness probe on its reactor.

For runs that look at the event loop only; time and memory are measured with the real twistd. Usage:
``python bench/serve.py --lateness FILE [options of the service]``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lateness import LatenessProbe
from twisted.internet import reactor
from twisted.logger import globalLogBeginner, textFileLogObserver

from twistedmedia.service.tap import Options, makeService


def main() -> None:
    """Serve until a signal comes, then write the probe's figures."""
    parser = argparse.ArgumentParser(description="twistedmedia with a lateness probe")
    parser.add_argument("--lateness", type=Path, required=True, help="where to write the figures")
    ours, service_arguments = parser.parse_known_args()

    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    options = Options()
    options.parseOptions(service_arguments)  # type: ignore[no-untyped-call]
    service = makeService(options)
    probe = LatenessProbe(reactor.callLater)
    reactor.callWhenRunning(probe.start)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.addSystemEventTrigger("after", "shutdown", probe.dump, ours.lateness)
    service.privilegedStartService()
    service.startService()
    reactor.run()


if __name__ == "__main__":
    main()
