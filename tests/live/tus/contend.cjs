// Three tus-js-clients go on with one upload at once: ENDPOINT UPLOAD PATH. Says in a line each time
// that a HEAD is answered 423, and at the end in JSON how many uploads they began and the URLs.
const fs = require("node:fs");
const tus = require("tus-js-client");

const [endpoint, uploadUrl, path] = process.argv.slice(2);
const CLIENTS = 3;
const content = fs.readFileSync(path);
let begun = 0;
const urls = [];
const uploads = Array.from({ length: CLIENTS }, () => {
  const upload = new tus.Upload(content, {
    endpoint,
    uploadUrl,
    retryDelays: Array(100).fill(50),
    metadata: { filename: "anew.mp3", directory: "anew" },
    onBeforeRequest: (request) => {
      if (request.getMethod() === "POST") begun += 1;
    },
    onAfterResponse: (request, response) => {
      if (request.getMethod() === "HEAD" && response.getStatus() === 423) console.log("locked");
    },
    onError: (error) => {
      console.error(String(error));
      process.exit(1);
    },
    onSuccess: () => {
      urls.push(upload.url);
      if (urls.length === CLIENTS) console.log(JSON.stringify({ begun, urls }));
    },
  });
  return upload;
});
for (const upload of uploads) upload.start();
