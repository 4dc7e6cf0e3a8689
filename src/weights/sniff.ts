/**
 * What stands where a model's file should. Hosts answer for a file that they don't have with a page, a note or a JSON
 * error, and status 200; a clone without Git LFS holds pointers. Decided by content, because content types are wrong
 * both ways: JSON comes as text/html, and pages as application/octet-stream.
 */
import { MixdqError } from "../base/errors.ts";
import { isObject } from "../base/json.ts";
import { tryJsonText } from "../base/jsonText.ts";

/** How many bytes of a file `isNote` wants. */
export const SNIFF_BYTES = 64;

/** Longer JSON is no error message. */
const MAX_ERROR_CHARACTERS = 10_000;

/** Keys of the error objects of web servers and frameworks; RFC 9457 has type, title, status, detail, instance. */
const ERROR_KEYS = new Set(
  [
    "error",
    "errors",
    "message",
    "msg",
    "detail",
    "title",
    "code",
    "status",
    "statusCode",
    "status_code",
    "ok",
    "success",
  ]
    .concat(["type", "instance", "reason", "path", "url", "timestamp", "data", "result", "traceId", "stack"])
    .concat(["requestId", "request_id", "documentation_url", "error_description", "hint"]),
);
const SAYS_WHY = ["error", "errors", "message", "msg", "detail", "title", "code", "reason"];

/** One line that says why there is nothing else. */
const NOTE =
  /^[^\n]*(not found|no such|doesn.?t exist|does not exist|not exist|denied|forbidden|unauthori[sz]ed)[^\n]*\n?$/i;

/** An empty answer, in text or in JSON. */
const NOTHING = /^(null|""|\{\}|\[\])?\s*$/;

/** Whether `text` is a host's words about a missing file rather than the file `path`. */
export function isInsteadOf(path: string, text: string): boolean {
  const start = text.trimStart();
  if (path.endsWith(".json")) return start.startsWith("{") ? isErrorObject(start) : !start.startsWith("[");
  return isMarkup(start) || isErrorObject(start) || NOTHING.test(start) || (start.length < 300 && NOTE.test(start));
}

/** `<` before a name, `!` or `?`: CLIP's merges may begin with a `<` of their own. */
function isMarkup(text: string): boolean {
  return /^<[a-z!?]/i.test(text);
}

function isErrorObject(text: string): boolean {
  if (!text.startsWith("{") || text.length > MAX_ERROR_CHARACTERS) return false;
  const value = tryJsonText(text);
  const keys = isObject(value) ? Object.keys(value) : [];
  return keys.every((key) => ERROR_KEYS.has(key)) && keys.some((key) => SAYS_WHY.includes(key));
}

/**
 * Whether a file of weights that begins with `head` is in truth a page or a note. A safetensors file never is: the upper
 * four of its first eight bytes, the header's length, are zero, and text has no zeros. A pointer of Git LFS is none
 * either: the file is there, and reading it says what to do.
 */
export function isNote(head: Uint8Array): boolean {
  const isText = head.length > 0 && head.every((byte) => byte >= 0x20 || [0x09, 0x0a, 0x0d].includes(byte));
  return isText && !isLfsPointer(textOf(head));
}

const textOf = (head: Uint8Array): string => new TextDecoder().decode(head.subarray(0, SNIFF_BYTES));

export function isLfsPointer(text: string): boolean {
  return text.startsWith("version https://git-lfs");
}

/** Throws `invalid-model` where `content` is the pointer that stands for the file in a clone without Git LFS. */
export function refusePointer(content: string | Uint8Array, where: string): void {
  if (!isLfsPointer(typeof content === "string" ? content : textOf(content))) return;
  const advice = "Run `git lfs pull` in the model's folder, or download the file again.";
  throw new MixdqError("invalid-model", `${where}: got a Git LFS pointer, expected the file itself. ${advice}`);
}
