"""Sends a form with a file by urllib3: `form URL FILE DIRECTORY`. Its name is written as urllib3
before 1.25 wrote names that are not ASCII: by RFC 2231, as `filename*` alone. Any response but a
success is a failure.
"""

import sys
import warnings
from pathlib import Path

import urllib3
from urllib3.fields import RequestField, format_header_param_rfc2231

warnings.simplefilter("ignore", FutureWarning)  # which urllib3 gives about that old way


def main(operation: str, url: str, name: str, directory: str) -> None:
    path = Path(name)
    field = RequestField(
        directory, path.read_bytes(), path.name, header_formatter=format_header_param_rfc2231
    )
    field.make_multipart(content_type="audio/wav")
    body, kind = urllib3.encode_multipart_formdata([field])
    response = urllib3.request(operation, url, body=body, headers={"Content-Type": kind})
    assert response.status == 201, response.data


main("POST", *sys.argv[2:])
