"""kill -9 at any moment: what was acknowledged is whole, and so is everything else."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from pathlib import Path
from random import SystemRandom
from shutil import rmtree

import pytest

from tests.live.support import killing_rounds
from tests.process.running import TWISTD, Process

# A service whose drafts are hidden files, as on file systems without O_TMPFILE.
HIDDEN_DRAFTS = """
    from twisted.application.service import Application
    from twisted.internet import reactor
    from twisted.internet.endpoints import TCP4ServerEndpoint

    from twistedmedia.library.library import Library, UploadLimits
    from twistedmedia.service.service import MediaService, ServiceEndpoint
    from twistedmedia.store.local.directory import DirectoryStore
    from twistedmedia.web.tree import media_resource
    from twistedmedia.http.site import MediaSite

    store = DirectoryStore(reactor, ROOT, unnamed_drafts=False)
    library = Library(store, UploadLimits())
    endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    application = Application("media")
    site = MediaSite(media_resource(library), reactor)
    listening = ServiceEndpoint(endpoint, "--port", is_open=False)
    MediaService(reactor, [listening], site, library, store).setServiceParent(application)
"""


@pytest.fixture
def area(tmp_path: Path) -> Iterator[Path]:
    """Where the root lies; emptied, for it gets large."""
    folder = tmp_path / "area"
    folder.mkdir()
    yield folder
    rmtree(folder)


def start(area: Path, *, hidden_drafts: bool) -> Process:
    """A service on the same root as ever."""
    root = area / "media"
    if hidden_drafts:
        tac = area / "hidden.tac"
        tac.write_text(textwrap.dedent(HIDDEN_DRAFTS).replace("ROOT", repr(str(root))))
        options = ["-y", str(tac)]
    else:
        options = ["media", "--port", "0", "--root", str(root)]
    command = [TWISTD, "-n", "--pidfile=", *options]
    return Process(command, area, area.with_name("area.log"), root)


@pytest.mark.parametrize(
    ("rounds", "hidden_drafts"),
    [
        (8, False),
        (4, True),
        pytest.param(50, False, marks=pytest.mark.long),
        pytest.param(50, True, marks=pytest.mark.long),
    ],
)
def test_after_a_kill_every_file_is_whole_and_the_acknowledged_ones_are_there(
    area: Path, rounds: int, hidden_drafts: bool
) -> None:
    """Cases 3 and 27. MEDIA_KILL_SEED repeats the uploads of a failure, and its moments nearly."""
    seed = int(os.environ.get("MEDIA_KILL_SEED") or SystemRandom().randrange(1 << 32))
    print(f"MEDIA_KILL_SEED={seed}")  # pytest shows it when the test fails
    killing_rounds(lambda: start(area, hidden_drafts=hidden_drafts), rounds, seed)
