// Sends and fetches one file with the fetch of Node: OPERATION URL FILE, and for a form its
// directory. For a form the file's part is named by the directory. Any response but a success is a
// failure.

import { appendFileSync, createReadStream, readFileSync, statSync, writeFileSync } from "node:fs";
import { basename } from "node:path";
import { Readable } from "node:stream";

const [operation, url, file, directory] = process.argv.slice(2);

function begin() {
    switch (operation) {
        case "put":
            return fetch(url, { method: "PUT", body: readFileSync(file) });
        case "form": {
            const form = new FormData();
            form.append(directory, new Blob([readFileSync(file)]), basename(file));
            return fetch(url, { method: "POST", body: form });
        }
        case "chunked": {
            const body = Readable.toWeb(createReadStream(file));
            return fetch(url, { method: "PUT", body, duplex: "half" });
        }
        case "download":
            return fetch(url);
        case "resume":
            return fetch(url, { headers: { Range: `bytes=${statSync(file).size}-` } });
        default:
            throw new Error(operation);
    }
}

const response = await begin();
const content = Buffer.from(await response.arrayBuffer());
if (!response.ok || (operation === "resume" && response.status !== 206)) {
    throw new Error(`${response.status} ${content}`);
}
if (operation === "download") writeFileSync(file, content);
if (operation === "resume") appendFileSync(file, content);
