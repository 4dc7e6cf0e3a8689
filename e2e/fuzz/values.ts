/** What has broken readers elsewhere: values for any place in a file, and text that is no value at all. */
import type { Chance } from "./chance.ts";

/** JSON text for which there is no value in JSON: put into the written text as it is. */
export class Raw {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

const NUMBERS: readonly unknown[] = [
  ...[0, -0, 1, -1, 2, 3, 7, 8, 16, 0.5, -0.5, 1.5, 1e-300, 1e-45, 1e300, 3.5e38, 65504, 65536],
  ...[127, 128, 255, 256, 4096, 1e5, 1e6, 1e9, 2 ** 31, 2 ** 32, 2 ** 53, -(2 ** 31), -(2 ** 53)],
  ...[
    "NaN",
    "Infinity",
    "-Infinity",
    "1e400",
    "-1e400",
    "9007199254740993",
    "1E5",
    "-0",
    "1.0",
    "00",
    "+1",
    "0x10",
  ].map((text) => new Raw(text)),
];

const TEXTS: readonly string[] = [
  ...[
    "",
    " ",
    "a",
    "8",
    "NaN",
    "null",
    "__proto__",
    "constructor",
    "toString",
    "hasOwnProperty",
    "__metadata__",
    "length",
  ],
  ...[
    "\u001b[2J\u001b]0;x\u0007",
    "\u009b31m",
    "\u202egnp.exe",
    "\u2028",
    "\ufeff",
    "\u0000",
    "\ud800",
    "a\nb\rc",
    "😀",
  ],
  ...[
    "../../etc/passwd",
    "/etc/passwd",
    "C:\\x",
    "https://x/y",
    "a/b",
    "x.safetensors",
    "<html>",
    "version ",
    "${x}",
    "%00",
  ],
  ...[
    "UNet2DConditionModel",
    "AutoencoderTiny",
    "AutoencoderKL",
    "CLIPTextModel",
    "LCMScheduler",
    "EulerDiscreteScheduler",
  ],
  ...[
    "EulerAncestralDiscreteScheduler",
    "gelu",
    "silu",
    "F32",
    "F16",
    "BF16",
    "I64",
    "BOOL",
    "F8_E4M3",
    "F4",
    "I3",
    "U4",
  ],
  ...["linear", "scaled_linear", "squaredcos_cap_v2", "trailing", "leading", "linspace", "v_prediction", "text_time"],
  ...[
    "mixdq-config",
    "mixdq-pack",
    "mixdq-calibration",
    "content",
    "quality",
    "mse",
    "<|endoftext|>",
    "</w>",
    "a b",
    "a b c",
  ],
];

const LISTS: readonly unknown[] = [[], [0], [1, 2], [[]], [[[]]], [null], [1, 1, 1, 1], [0, 0], [-1, 4], {}, { a: 1 }];

/** Seldom, because each of these costs a millisecond and more. */
function large(chance: Chance): unknown {
  switch (chance.below(8)) {
    case 0:
      return new Raw("[".repeat(20_000) + "]".repeat(20_000));
    case 1:
      return new Raw(
        '{"a":'.repeat(chance.of([100, 127, 200, 20_000])) + "1" + "}".repeat(chance.of([127, 200, 20_000])),
      );
    case 2:
      return "x".repeat(chance.of([1000, 1025, 100_000]));
    case 3:
      return "\u001b".repeat(5000);
    case 4:
      return "é".repeat(3000);
    case 5:
      return Array(chance.of([9, 300, 20_000])).fill(chance.of([0, 1, 8, "a", null]));
    case 6:
      return Object.fromEntries(Array.from({ length: chance.of([100, 5000]) }, (_, i) => [`k${i}`, i]));
    default:
      return new Raw(`"${"\\u0041".repeat(2000)}"`);
  }
}

export function anyValue(chance: Chance): unknown {
  if (chance.oneIn(60)) return large(chance);
  switch (chance.below(5)) {
    case 0:
      return chance.of([true, false, null]);
    case 1:
      return anyText(chance);
    case 2:
      return structuredClone(chance.of(LISTS));
    default:
      return anyNumber(chance);
  }
}

export const anyNumber = (chance: Chance): unknown => chance.of(NUMBERS);
export const anyText = (chance: Chance): string => chance.of(TEXTS);
