#!/usr/bin/env bash
# Chromium's HTTP cache keeps what Range requests brought, and from then on the server gets other requests than the page makes.
#
# Guess: a fetch() without a Range header is a plain GET or comes from the cache, and one with `Range: bytes=a-b` reaches the
#   server with these two numbers.
# Seen, with a strong ETag and a max-age, after a page has read two pieces of a file by Range (as one reads safetensors: some
#   tensors of a large file):
#     - a third Range that overlaps both reaches the server cut down to the gap between them, with an If-Range that the page
#       never set (a cross-origin page would need a preflight for it), while the page gets the whole 206 that it asked for;
#     - a plain fetch() of the file is sent as one Range request for each gap, one after the other, and the page gets a 200;
#     - the memory cache (private windows, automation's default contexts) does not keep what lies between a range's start and
#       the next multiple of 4096: it asks again, in a request of a few hundred bytes, for what it was given a moment ago. The
#       disk cache keeps it, so the same page makes more requests in a private window;
#     - a fetch that broke off at byte 250,000 leaves nothing behind: a Range from 240,000 on is sent as it is, and what is
#       kept is only the answer to that.
# Cost: tests of which ranges a loader asks for see others than it set; one download becomes several requests in a row, each
#   with its round trip; and the server must answer Range and If-Range rightly for code that has no such header in it.
# Way out: `cache: "no-store"` on such requests, or read them with offsets that are multiples of 4096.
#
# Runs in @sparticuz/chromium: Linux, x86-64, about 100 MB of packages. Other versions: PLAYWRIGHT=x.y.z SPARTICUZ=x.y.z.
# Exit: 0 as described, 1 the behaviour has changed, 2 it could not be tried.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"
npm install --prefix "$tmp" --ignore-scripts --no-audit --no-fund --loglevel=error \
  "playwright-core@${PLAYWRIGHT:-1.65.1}" "@sparticuz/chromium@${SPARTICUZ:-153.0.0}" > /dev/null || exit 2

cat > show.mjs << 'EOF'
import { createServer } from "node:http";
import bundled from "@sparticuz/chromium";
import { chromium } from "playwright-core";

// What fails here is not the behaviour that is looked at.
process.on("uncaughtException", (error) => {
  console.error(error);
  process.exit(2);
});
const SIZE = 300_000;
const content = Buffer.alloc(SIZE, 7);
let asked = [];
let breakOffAt = 0;
const server = createServer(({ url, headers }, response) => {
  if (!url.startsWith("/file")) return response.setHeader("content-type", "text/html").end("<!doctype html>");
  asked.push(`${headers.range ?? "all"}${headers["if-range"] ? " if-range" : ""}`);
  response.setHeader("etag", '"one"').setHeader("cache-control", "max-age=600").setHeader("accept-ranges", "bytes");
  const range = /^bytes=(\d+)-(\d*)$/.exec(headers.range ?? "");
  if (range) {
    const [first, last] = [Number(range[1]), Math.min(Number(range[2] || SIZE), SIZE - 1)];
    response.writeHead(206, { "content-range": `bytes ${first}-${last}/${SIZE}`, "content-length": last - first + 1 });
    return response.end(content.subarray(first, last + 1));
  }
  response.writeHead(200, { "content-length": SIZE });
  if (!breakOffAt) return response.end(content);
  response.write(content.subarray(0, breakOffAt));
  setTimeout(() => response.destroy(), 300);
}).listen(0, "127.0.0.1");

/** What the server is asked while a page makes these requests, one after the other, of a file of its own. */
async function requests(page, name, steps) {
  const rows = [];
  for (const step of steps) {
    breakOffAt = step === "all, broken off" ? 250_000 : 0;
    asked = [];
    const got = await page.evaluate(
      async ([url, range]) => {
        const response = await fetch(url, range.startsWith("bytes") ? { headers: { range } } : {});
        const length = await response.arrayBuffer().then((buffer) => buffer.byteLength, () => "an error");
        return `${response.status}, ${length}`;
      },
      [`/file-${name}`, step],
    );
    rows.push([step, got, asked.join("; ") || "nothing"]);
  }
  return rows;
}

const SCENES = {
  pieces: ["bytes=0-99999", "bytes=200000-299999", "bytes=50000-250000", "all"],
  tensors: ["bytes=1000-1999", "bytes=2000-9999", "all", "all"],
  aligned: ["bytes=4096-8191", "bytes=8192-12287", "all"],
  resumed: ["all, broken off", "bytes=240000-", "all"],
};
const BOTH = {
  pieces: ["bytes=0-99999", "bytes=200000-299999 if-range", "bytes=100000-199999 if-range", "nothing"],
  tensors: [
    "bytes=1000-1999",
    "bytes=2000-9999 if-range",
    "bytes=0-999 if-range; bytes=10000-299999 if-range",
    "nothing",
  ],
  aligned: ["bytes=4096-8191", "bytes=8192-12287 if-range", "bytes=0-4095 if-range; bytes=12288-299999 if-range"],
  resumed: ["all", "bytes=240000-", "bytes=0-239999 if-range"],
};
const EXPECTED = {
  disk: BOTH,
  memory: {
    ...BOTH,
    pieces: BOTH.pieces.with(2, "bytes=100000-199999 if-range; bytes=200000-200703 if-range"),
    tensors: BOTH.tensors.with(2, "bytes=0-999 if-range; bytes=1000-4095 if-range; bytes=10000-299999 if-range"),
    resumed: BOTH.resumed.with(2, "bytes=0-239999 if-range; bytes=240000-241663 if-range"),
  },
};

const options = {
  executablePath: await bundled.executablePath(),
  env: { ...process.env, LD_LIBRARY_PATH: `${process.env.TMPDIR}/al2023/lib` },
  args: ["--no-sandbox"],
  timeout: 180_000,
};
const browser = await chromium.launch(options);
console.log(`Chromium ${browser.version()}`);
const contexts = {
  disk: await chromium.launchPersistentContext(`${process.env.TMPDIR}/profile`, options),
  memory: await browser.newContext(),
};
let changed = 0;
for (const [cache, context] of Object.entries(contexts)) {
  const page = await context.newPage();
  page.setDefaultTimeout(180_000);
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  for (const [name, steps] of Object.entries(SCENES)) {
    console.log(`\n${cache} cache, ${name}`);
    for (const [i, [step, got, seen]] of (await requests(page, name, steps)).entries()) {
      const same = seen === EXPECTED[cache][name][i];
      if (!same) changed++;
      console.log(`  page: ${step.padEnd(20)} gets ${got.padEnd(14)} server: ${seen}${same ? "" : "  CHANGED"}`);
    }
  }
  await context.close();
}
await browser.close();
server.close();
console.log(changed ? "\nThe behaviour has changed." : "\nAs described.");
process.exit(changed ? 1 : 0);
EOF
TMPDIR=$tmp AWS_LAMBDA_JS_RUNTIME=nodejs22.x node show.mjs
