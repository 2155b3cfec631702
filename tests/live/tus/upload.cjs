// Uploads a file with tus-js-client: ENDPOINT PATH METADATA CHUNK, the metadata in JSON, the size of
// a chunk in bytes, or 0 for its default. Says in JSON how often it tried again, and the URL.
const fs = require("node:fs");
const tus = require("tus-js-client");

const [endpoint, path, metadata, chunk] = process.argv.slice(2);
let retries = 0;
const options = {
  endpoint,
  metadata: JSON.parse(metadata),
  retryDelays: [0, 20, 50, 100, 500, 2000],
  onShouldRetry: (error) => {
    const status = error.originalResponse ? error.originalResponse.getStatus() : 0;
    retries += 1;
    return status < 400 || status >= 500 || status === 409 || status === 423; // as by default
  },
  onError: (error) => {
    console.error(String(error));
    process.exit(1);
  },
  onSuccess: () => console.log(JSON.stringify({ retries, url: upload.url })),
};
if (chunk !== "0") options.chunkSize = Number(chunk);
const upload = new tus.Upload(fs.createReadStream(path), options);
upload.start();
