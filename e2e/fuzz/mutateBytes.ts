/** Changes to files that are not JSON, or no longer: to text, to lines, and to safetensors. */
import type { Chance } from "./chance.ts";
import { mutateJson, writeJson } from "./mutateJson.ts";
import { anyNumber, anyText, Raw } from "./values.ts";

const JUNK: readonly string[] = [
  ...[
    "<html>",
    "\ufeff",
    " ",
    "\n",
    "\r\n",
    "\t",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    '"',
    "\\",
    "\\u00",
    "NaN",
    "Infinity",
    "-",
  ],
  ...[
    "#",
    "&a ",
    "*a",
    "!!str ",
    "? ",
    "- ",
    "|",
    ">",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "'",
    "<<: *a\n",
    "!!binary |\n",
    "\0",
  ],
];

/** As a transfer, an editor or a disk damages text. */
export function mutateText(text: string, chance: Chance): string {
  const [a, b] = [chance.below(text.length + 1), chance.below(text.length + 1)].sort((x, y) => x - y) as [
    number,
    number,
  ];
  switch (chance.below(9)) {
    case 0:
      return text.slice(0, b);
    case 1:
      return text.slice(0, a) + text.slice(Math.min(b, a + 20));
    case 2:
      return text.slice(0, a) + chance.of(JUNK) + text.slice(a);
    case 3:
      return text.slice(0, a) + anyText(chance) + text.slice(a);
    case 4:
      return chance.of(JUNK) + text;
    case 5:
      return text + chance.of(JUNK);
    case 6:
      return text.slice(0, a) + String.fromCharCode(text.charCodeAt(a) ^ (1 << chance.below(8))) + text.slice(a + 1);
    case 7:
      return text.slice(0, b) + text.slice(a, Math.min(b, a + 2000)).repeat(chance.of([1, 2, 20])) + text.slice(b);
    default:
      return chance.oneIn(20) ? chance.of(JUNK).repeat(20_000) : "";
  }
}

/** As a person or a programme gets one of many lines wrong. */
export function mutateLines(text: string, chance: Chance): string {
  let lines = text.split("\n");
  do {
    const [at, other] = [chance.below(lines.length), chance.below(lines.length)];
    const value = anyNumber(chance);
    const number = value instanceof Raw ? value.text : String(value);
    const line = chance.of([
      mutateText(lines[at], chance).slice(0, 10_000),
      lines[other],
      lines[at].replace(/\S+$/, number),
      lines[at].replace(/\S+$/, anyText(chance)),
      lines[at].replace(/^\S+/, anyText(chance)),
      `${lines[at]} ${lines[other]}`,
      ` ${lines[at]}`,
    ]);
    lines = chance.oneIn(3) ? lines.toSpliced(at, chance.below(2), line) : lines.with(at, line);
  } while (chance.oneIn(3));
  return lines.join("\n");
}

/** One that was written by a programme with a fault, or damaged afterwards; `parsed` is its header. */
export function mutateSafetensors(file: Uint8Array, parsed: unknown, chance: Chance): Uint8Array {
  const length = new DataView(file.buffer, file.byteOffset).getUint32(0, true);
  const header = new TextDecoder().decode(file.subarray(8, 8 + length));
  const data = file.subarray(8 + length);
  if (chance.oneIn(6)) return mutateRaw(file, chance);
  const text = chance.oneIn(6) ? mutateText(header, chance) : writeJson(mutateJson(parsed, chance));
  const json = new TextEncoder().encode(text);
  const size = chance.oneIn(20) ? chance.of([0, 1, json.length - 1, json.length + 8, 2 ** 31, 15392]) : json.length;
  const grown = chance.oneIn(20) ? chance.of([-1, 1, 8, -data.length]) : 0;
  const whole = new Uint8Array(8 + json.length + Math.max(0, data.length + grown));
  new DataView(whole.buffer).setUint32(0, size, true);
  whole.set(json, 8);
  whole.set(data.subarray(0, whole.length - 8 - json.length), 8 + json.length);
  return whole;
}

function mutateRaw(file: Uint8Array, chance: Chance): Uint8Array {
  const bytes = file.slice(0, chance.oneIn(3) ? chance.below(file.length + 1) : file.length);
  for (let times = chance.below(8); times > 0 && bytes.length > 0; times--) {
    // The header and what is before it more often than the data.
    const at = chance.below(chance.oneIn(2) ? bytes.length : Math.min(bytes.length, 600));
    bytes[at] = chance.oneIn(2) ? chance.below(256) : bytes[at] ^ (1 << chance.below(8));
  }
  return bytes;
}
