/**
 * A model's files over HTTP(S): any static server with the folder on it, or a Hugging Face `resolve/<revision>` address.
 */
import { MixdqError, throwIfAborted } from "../base/errors.ts";
import type { FileStream, ModelFiles } from "./files.ts";

/** One failed request in a long download is common, two in a row are an outage. */
const ATTEMPTS = 2;
const RETRY_DELAY_MS = 500;

/**
 * The files below `baseUrl` (relative to the page where there is one). 404, 410 and an HTML page in a file's place mean
 * that there is no such file; any other failure throws `network` with address and status. Throws `invalid-input` for an
 * address that is none.
 */
export function httpFiles(baseUrl: string): ModelFiles {
  const base = parseBase(baseUrl);

  async function request(path: string, signal: AbortSignal | undefined): Promise<Response | undefined> {
    const url = new URL(path.split("/").map(encodeURIComponent).join("/"), base);
    // A signed address carries its signature in the query; every file needs it.
    url.search = base.search;
    const response = await fetchWithRetry(url.href, signal);
    const isPage = response.headers.get("content-type")?.startsWith("text/html") ?? false;
    if (response.status === 404 || response.status === 410 || (response.ok && isPage)) {
      await response.body?.cancel();
      return undefined;
    }
    if (!response.ok) {
      await response.body?.cancel();
      throw new MixdqError(
        "network",
        `${withoutQuery(url.href)}: got status ${response.status} ${response.statusText}, expected 200. ${adviceFor(response.status)}`,
      );
    }
    return response;
  }

  return {
    location: withoutQuery(base.href).replace(/\/$/, ""),

    async text(path, signal) {
      const response = await request(path, signal);
      return response?.text().catch((cause: unknown) => {
        throw broken(response.url, signal, cause);
      });
    },

    async open(path, signal): Promise<FileStream | undefined> {
      const response = await request(path, signal);
      if (response === undefined) return undefined;
      // With a content encoding the length is that of the compressed bytes, which are not what we will see.
      const isEncoded = response.headers.has("content-encoding");
      const length = Number(response.headers.get("content-length") ?? 0);
      const bytes = !isEncoded && Number.isSafeInteger(length) && length > 0 ? length : 0;
      return { bytes, body: response.body ?? emptyStream() };
    },
  };
}

function emptyStream(): ReadableStream<Uint8Array> {
  return new ReadableStream({ start: (controller) => controller.close() });
}

function parseBase(baseUrl: string): URL {
  try {
    const page = typeof location === "undefined" ? undefined : location.href;
    const url = new URL(baseUrl, page);
    url.hash = "";
    if (!url.pathname.endsWith("/")) url.pathname += "/";
    if (url.protocol === "http:" || url.protocol === "https:") return url;
  } catch {
    // Reported below, with the same words.
  }
  throw new MixdqError(
    "invalid-input",
    `model: got ${JSON.stringify(baseUrl)}, expected an http or https address. Pass the address of a model's folder.`,
  );
}

/** The response, whatever its status; requests that fail or meet a struggling server are tried once more. */
async function fetchWithRetry(url: string, signal: AbortSignal | undefined): Promise<Response> {
  for (let attempt = 1; ; attempt++) {
    throwIfAborted(signal);
    try {
      const response = await fetch(url, signal === undefined ? {} : { signal });
      const isStruggling = response.status === 429 || response.status >= 500;
      if (!isStruggling || attempt === ATTEMPTS) return response;
      await response.body?.cancel();
    } catch (cause) {
      if (attempt === ATTEMPTS || signal?.aborted) throw broken(url, signal, cause);
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_DELAY_MS));
  }
}

function broken(url: string, signal: AbortSignal | undefined, cause: unknown): MixdqError {
  if (signal?.aborted) return new MixdqError("aborted", "The run was cancelled.", { cause });
  const advice = "Check the connection, and that the server allows this page to read from it (CORS).";
  return new MixdqError("network", `${withoutQuery(url)}: no answer (${String(cause)}). ${advice}`, { cause });
}

/** Signatures do not belong in messages. */
function withoutQuery(url: string): string {
  return url.replace(/\?.*$/, "");
}

function adviceFor(status: number): string {
  if (status === 401 || status === 403) return "The file needs a login or a licence to be accepted first.";
  return status === 429 ? "Wait a while and try again." : "Try again later, or use another server.";
}
