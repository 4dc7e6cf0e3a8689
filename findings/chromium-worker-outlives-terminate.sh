#!/usr/bin/env bash
# A busy worker in Chromium runs on for two seconds after terminate(), and to its end if its task was started from outside.
#
# Guess: `worker.terminate()` ends a worker at once, whatever it is doing; HTML has it abort the running script. It makes no
#   difference whether a script was started by a message, by a timer or through the developer tools' protocol.
# Seen: a worker in a long computation is asked to stop, and its script is aborted only when it has not done so after two
#   seconds; until then it computes, writes to shared memory and holds its cores. A computation that Runtime.evaluate started
#   (Playwright's `worker.evaluate`, a line in the console) is not aborted at all: it runs until it returns by itself. The same
#   code from a setTimeout in the same evaluate() is aborted.
# Cost: a test that makes a worker busy through Playwright and asks whether it can be ended finds that it can't, and blames
#   the code under test; a page that replaces its worker on cancel has two of them computing for two seconds, with both
#   working sets in memory.
# Way out: let the evaluated script only start a timer; where two seconds count, have the computation ask now and then whether
#   it is still wanted (an Atomics.load), and terminate after that.
#
# Every loop here ends by itself after 8 s. Runs in @sparticuz/chromium: Linux, x86-64, about 100 MB of packages.
# Other versions: PLAYWRIGHT=x.y.z SPARTICUZ=x.y.z. Exit: 0 as described, 1 the behaviour has changed, 2 could not be tried.
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
const LOOP_MS = 8000;
const WORKER = `
  let counter;
  function compute() {
    for (const end = Date.now() + ${LOOP_MS}; Date.now() < end; ) Atomics.add(counter, 0, 1);
  }
  onmessage = ({ data }) => {
    if (data === "compute") return compute();
    counter = new Int32Array(data);
    postMessage("ready");
  };`;
const server = createServer(({ url }, response) => {
  // Without these two a page has no SharedArrayBuffer.
  response.setHeader("cross-origin-opener-policy", "same-origin").setHeader("cross-origin-embedder-policy", "require-corp");
  response.setHeader("content-type", url === "/worker.js" ? "text/javascript" : "text/html");
  response.end(url === "/worker.js" ? WORKER : "<!doctype html>");
}).listen(0, "127.0.0.1");

const browser = await chromium.launch({
  executablePath: await bundled.executablePath(),
  env: { ...process.env, LD_LIBRARY_PATH: `${process.env.TMPDIR}/al2023/lib` },
  args: ["--no-sandbox"],
  timeout: 180_000,
});
console.log(`Chromium ${browser.version()}\n`);

/** Milliseconds for which the worker goes on counting after terminate(). */
async function survives(start) {
  const page = await browser.newPage();
  page.setDefaultTimeout(180_000);
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  const [worker] = await Promise.all([
    page.waitForEvent("worker"),
    page.evaluate(
      () =>
        new Promise((ready) => {
          const shared = new SharedArrayBuffer(4);
          window.counter = new Int32Array(shared);
          window.worker = new Worker("/worker.js");
          window.worker.onmessage = ready;
          window.worker.postMessage(shared);
        }),
    ),
  ]);
  start(page, worker).catch(() => {}); // An evaluation that is cut short fails; that is what is measured here.
  await page.waitForFunction(() => window.counter[0] > 0);
  const ms = await page.evaluate(async (most) => {
    window.worker.terminate();
    const begin = performance.now();
    let last = begin;
    for (let seen = -1; performance.now() - begin < most; await new Promise((done) => setTimeout(done, 50)))
      if (seen !== (seen = window.counter[0])) last = performance.now();
    return last - begin;
  }, LOOP_MS + 2000);
  await page.close();
  return ms;
}

const rows = [
  ["a message", [1000, 5000], (page) => page.evaluate(() => window.worker.postMessage("compute"))],
  ["a timer that the protocol set", [1000, 5000], (_, worker) => worker.evaluate("void setTimeout(compute)")],
  ["the protocol itself", [6000, Infinity], (_, worker) => worker.evaluate("compute()")],
];
let changed = 0;
for (const [name, [least, most], start] of rows) {
  const ms = await survives(start);
  const same = ms > least && ms < most;
  if (!same) changed++;
  console.log(`started by ${name.padEnd(30)} ran on for ${(ms / 1000).toFixed(1)} s${same ? "" : "  CHANGED"}`);
}
await browser.close();
server.close();
console.log(changed ? "\nThe behaviour has changed." : "\nAs described.");
process.exit(changed ? 1 : 0);
EOF
TMPDIR=$tmp AWS_LAMBDA_JS_RUNTIME=nodejs22.x node show.mjs
