/**
 * Asking a server for one file, with patience: failures and struggling servers are asked again, ever later, and silence
 * has an end. How often is counted per file, over its requests and its body together.
 */
import { MixdqError, throwIfAborted } from "../base/errors.ts";
import { isOffline } from "../base/offline.ts";
import { redact } from "../base/redact.ts";

export interface HttpOptions {
  /** Milliseconds without a byte after which a file is given up; half of it into the silence it is asked for anew. */
  readonly stallMs?: number | undefined;
  /** Milliseconds before the second try; each further one waits twice as long. */
  readonly retryMs?: number | undefined;
  /** Sent as a bearer token, in place of a name and password. */
  readonly token?: string | undefined;
}

/** Static hosts answer within seconds; 30 s of silence are a connection that is dead without knowing. */
export const STALL_MS = 60_000;
const RETRY_MS = 500;
/** Failures without progress between them: three waits, 3.5 s in all. */
const ATTEMPTS = 4;
const SILENCES = 2;
/** What counts as progress: a connection that breaks every few bytes would be tried for ever. */
const PROGRESS_BYTES = 2 ** 20;
/** A server that asks for more patience (Retry-After) is not waited for. */
const MAX_WAIT_MS = 30_000;
/** Longer timers fire at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** The host cannot be reached at all: offline, a wrong name, nothing that listens. */
export class UnreachableError extends MixdqError {}

export interface Target {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  /** For messages. */
  readonly where: string;
}

export interface Answer {
  readonly response: Response;
  readonly connection: Connection;
}

/** One request and the body of its answer. */
export class Connection {
  readonly signal: AbortSignal;
  readonly #controller = new AbortController();
  readonly #silenceMs: number;

  constructor(silenceMs: number, signal: AbortSignal | undefined) {
    this.#silenceMs = Math.min(silenceMs, MAX_TIMER_MS);
    this.signal = signal ? AbortSignal.any([signal, this.#controller.signal]) : this.#controller.signal;
  }

  /** What `work` waits for; throws Silence, and ends the request, where that does not come in time. */
  async within<T>(work: Promise<T>): Promise<T> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const silence = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        const error = new Silence();
        reject(error);
        this.#controller.abort(error);
      }, this.#silenceMs);
    });
    try {
      return await Promise.race([work, silence]);
    } finally {
      clearTimeout(timer);
    }
  }

  close(): void {
    this.#controller.abort();
  }
}

class Silence extends Error {}

class Struggling extends Error {
  readonly retryAfterMs: number;
  constructor({ status, statusText, headers }: Response) {
    super(`status ${status} ${statusText}`.trim());
    this.retryAfterMs = 1000 * (Number(headers.get("retry-after")) || 0);
  }
}

export class Exchange {
  readonly target: Target;
  readonly signal: AbortSignal | undefined;
  readonly #stallMs: number;
  readonly #retryMs: number;
  /** undefined before a body has begun. */
  #received: number | undefined;
  #sinceFailure = 0;
  #failures = 0;
  #silences = 0;

  constructor(target: Target, { stallMs, retryMs }: HttpOptions, signal: AbortSignal | undefined) {
    this.target = target;
    this.signal = signal;
    this.#stallMs = stallMs ?? STALL_MS;
    this.#retryMs = retryMs ?? RETRY_MS;
  }

  /** The answer to GET, whatever its status but those of a server in trouble. Throws `network` and `aborted`. */
  async get(range?: string): Promise<Answer> {
    for (;;) {
      throwIfAborted(this.signal);
      try {
        const answer = await this.#request("GET", range);
        if (!isStruggling(answer.response.status)) return answer;
        answer.connection.close();
        throw new Struggling(answer.response);
      } catch (cause) {
        await this.pause(cause);
      }
    }
  }

  /** The answer to HEAD. Some servers cannot, and say so by breaking off or by silence: asked once, undefined then. */
  async head(): Promise<Response | undefined> {
    throwIfAborted(this.signal);
    try {
      return (await this.#request("HEAD")).response;
    } catch (cause) {
      throwIfAborted(this.signal);
      if (cause instanceof Silence) this.#silences++;
      return undefined;
    }
  }

  async #request(method: "GET" | "HEAD", range?: string): Promise<Answer> {
    const { url, headers } = this.target;
    const connection = new Connection(this.#stallMs / SILENCES, this.signal);
    // A simple range needs no preflight; If-Range would, so whoever asks for one compares validators instead.
    const init = { method, headers: range ? { ...headers, range } : headers, signal: connection.signal };
    return { response: await connection.within(fetch(url, init)), connection };
  }

  /** Bytes of the body that arrived, new ones only; 0 when it begins. */
  received(bytes: number): void {
    this.#received = (this.#received ?? 0) + bytes;
    this.#sinceFailure += bytes;
    if (this.#sinceFailure >= PROGRESS_BYTES) this.#failures = this.#silences = 0;
  }

  /** After a failure: waits until it is time for the next try, or throws what to tell people if there is none. */
  async pause(cause: unknown): Promise<void> {
    throwIfAborted(this.signal);
    if (cause instanceof MixdqError) throw cause;
    this.#sinceFailure = 0;
    this.#failures++;
    if (cause instanceof Silence) this.#silences++;
    const isHopeless = isOffline() && this.#received === undefined;
    if (isHopeless || this.#failures >= ATTEMPTS || this.#silences >= SILENCES) throw await this.failure(cause);
    // Silence was wait enough.
    if (cause instanceof Silence) return;
    const asked = cause instanceof Struggling ? Math.min(cause.retryAfterMs, MAX_WAIT_MS) : 0;
    await sleep(Math.max(asked, this.#retryMs * 2 ** (this.#failures - 1)), this.signal);
  }

  /** What to tell people. */
  async failure(cause: unknown): Promise<MixdqError> {
    const { where } = this.target;
    const say = (what: string): MixdqError => new MixdqError("network", `${where}: ${what}`, { cause });
    const soFar = this.#received !== undefined ? ` after ${this.#received} bytes` : "";
    if (cause instanceof Struggling)
      return say(`got ${cause.message}, expected 200. Wait a while and try again, or use another server.`);
    if (isOffline())
      return new UnreachableError(
        "network",
        `${where}: this device is offline${soFar && `, the file broke off${soFar}`}. Connect it and try again.`,
        { cause },
      );
    if (cause instanceof Silence)
      return say(
        `the server sent nothing for ${this.#stallMs / 1000} s${soFar}, expected the file. Check the connection and try again.`,
      );
    const why = redact(reasonOf(cause));
    if (soFar) return say(`the stream broke off${soFar} (${why}). Check the connection and try again.`);
    if (await answersOthers(this.target.url)) {
      const advice = "It must allow that (CORS, Access-Control-Allow-Origin): use another server.";
      return say(`the server answers, but does not let this page read from it. ${advice}`);
    }
    const advice = "Check the connection (is this device offline?) and the address.";
    return new UnreachableError("network", `${where}: no answer (${why}). ${advice}`, { cause });
  }
}

function isStruggling(status: number): boolean {
  return status === 408 || status === 425 || status === 429 || (status >= 500 && status !== 501);
}

/** Node hides the reason ("fetch failed") one error deeper. */
function reasonOf(cause: unknown): string {
  const inner = cause instanceof Error && cause.cause instanceof Error ? cause.cause.message : "";
  return inner ? `${String(cause)}: ${inner}` : String(cause);
}

/** A browser does not say why a request to another site failed; one whose answer cannot be read tells. */
async function answersOthers(url: string): Promise<boolean> {
  if (typeof location === "undefined" || new URL(url).origin === location.origin) return false;
  const request = fetch(url, { method: "HEAD", mode: "no-cors", signal: AbortSignal.timeout(5000) });
  return request.then(
    () => true,
    () => false,
  );
}

function sleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      clearTimeout(timer);
      reject(new MixdqError("aborted", "The run was cancelled."));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    }, ms);
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}
