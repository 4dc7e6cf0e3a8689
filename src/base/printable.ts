/** Untrusted text and values in a form that a message or a terminal can hold: cut, in one line, nothing that acts. */

/**
 * Control characters (a terminal obeys them), format characters (some reverse the order in which a line is shown), line
 * and paragraph separators, and halves of surrogate pairs.
 */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

/** About 80 characters of a module path, and some. */
const MAX_TEXT = 120;
const MAX_VALUE = 80;

/** A message is one line that people read; anything longer is a file's content. In bytes of UTF-8. */
export const MAX_MESSAGE_BYTES = 2000;

/** `text` with whatever is not a visible character escaped, cut after `most` characters. */
export function printable(text: string, most = MAX_TEXT): string {
  const escaped = escape(text.slice(0, most));
  return text.length > most || escaped.length > most ? `${escaped.slice(0, most)}…` : escaped;
}

/** A value as JSON (as Python writes it, where it is not finite), cut after `most` characters: never longer, however deep. */
export function show(value: unknown, most = MAX_VALUE): string {
  const text = write(value, most);
  return text.length > most ? `${text.slice(0, most)}…` : text;
}

/** A message as errors carry it: one line, nothing unprintable, at most MAX_MESSAGE_BYTES; what is too long loses its middle. */
export function asMessage(text: string): string {
  // Before anything is searched: a text of megabytes is cut first.
  const short = text.length > 2 * MAX_MESSAGE_BYTES ? middleCut(text, MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES) : text;
  const line = escape(short.replace(/\s*[\r\n]\s*/g, " "));
  if (line.length * 3 <= MAX_MESSAGE_BYTES) return line;
  const bytes = new TextEncoder().encode(line);
  if (bytes.length <= MAX_MESSAGE_BYTES) return line;
  const [begin, end] = [Math.floor(MAX_MESSAGE_BYTES * 0.6), Math.floor(MAX_MESSAGE_BYTES * 0.35)];
  // A character whose bytes were parted comes out as U+FFFD.
  const decode = (part: Uint8Array): string => new TextDecoder().decode(part).replace(/^\ufffd+|\ufffd+$/g, "");
  return `${decode(bytes.subarray(0, begin))} … ${decode(bytes.subarray(bytes.length - end))}`;
}

const middleCut = (text: string, begin: number, end: number): string =>
  `${text.slice(0, begin)} … ${text.slice(text.length - end)}`;

const escape = (text: string): string =>
  text.replace(UNPRINTABLE, (character) => {
    const code = character.codePointAt(0)!;
    return code > 0xffff ? `\\u{${code.toString(16)}}` : `\\u${code.toString(16).padStart(4, "0")}`;
  });

/** At least the first `room` characters of the JSON; each level of nesting takes some, which ends the recursion. */
function write(value: unknown, room: number): string {
  if (room <= 0) return "…";
  if (typeof value === "string") return escape(JSON.stringify(value.slice(0, room)));
  if (Array.isArray(value)) {
    let text = "[";
    for (let i = 0; i < value.length && text.length <= room; i++)
      text += `${i > 0 ? "," : ""}${write(value[i], room - text.length)}`;
    return `${text}]`;
  }
  if (typeof value === "object" && value !== null) {
    let text = "{";
    for (const key in value) {
      if (text.length > room) break;
      const name = write(key, room - text.length);
      text += `${text.length > 1 ? "," : ""}${name}:${write((value as Record<string, unknown>)[key], room - text.length - name.length)}`;
    }
    return `${text}}`;
  }
  return value === undefined ? "nothing" : String(value);
}
