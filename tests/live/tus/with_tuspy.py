"""Uploads a file with tuspy: ENDPOINT PATH METADATA CHUNK, the metadata in JSON, the size of a
chunk in bytes, or 0 for its default; with chunks it sends the checksum of each. Says in JSON the
URL.
"""

import json
import sys

from tusclient.client import TusClient

endpoint, path, metadata, chunk = sys.argv[1:]
options = {"chunk_size": int(chunk), "upload_checksum": True} if chunk != "0" else {}
uploader = TusClient(endpoint).uploader(
    path, metadata=json.loads(metadata), retries=500, retry_delay=0, **options
)
uploader.upload()
print(json.dumps({"url": uploader.url}))
