/**
 * What distilled LoRAs need of the scheduler, the steps and the guidance. Nothing in such a file says so: they are known by
 * the names that they were published under.
 */

/** How a picture is about to be made. */
export interface Sampling {
  /** diffusers' class. */
  readonly schedulerName: string;
  readonly steps: number;
  readonly guidanceScale: number;
}

interface Need {
  /** Of the file's address, in lower case. */
  readonly address: RegExp;
  readonly name: string;
  readonly schedulers: readonly string[];
  /** Where the address does not say them itself. */
  readonly steps: readonly [least: number, most: number];
  readonly guidance: number;
}

/** As their authors' cards have it. */
const NEEDS: readonly Need[] = [
  { address: /lcm/, name: "LCM", schedulers: ["LCMScheduler"], steps: [2, 8], guidance: 2 },
  { address: /lightning/, name: "Lightning", schedulers: ["EulerDiscreteScheduler"], steps: [2, 8], guidance: 0 },
  { address: /hyper-?sd/, name: "Hyper-SD", schedulers: ["DDIMScheduler", "TCDScheduler"], steps: [1, 8], guidance: 0 },
  { address: /dmd2/, name: "DMD2", schedulers: ["LCMScheduler"], steps: [4, 4], guidance: 0 },
  { address: /tcd/, name: "TCD", schedulers: ["TCDScheduler"], steps: [2, 8], guidance: 0 },
  {
    address: /pcm/,
    name: "PCM",
    schedulers: ["TCDScheduler", "DDIMScheduler", "EulerDiscreteScheduler"],
    steps: [2, 16],
    guidance: 7.5,
  },
];

/**
 * What to know of a picture with a LoRA at `address`; undefined where nothing speaks against it. Guidance of 0 and 1 are
 * the same: none.
 */
export function unmetNeed(address: string, sampling: Sampling): string | undefined {
  const text = address.toLowerCase();
  const need = NEEDS.find((each) => each.address.test(text));
  if (!need) return undefined;
  const said = /(?<!\d)(\d{1,2})[-_ ]?steps?/.exec(text)?.[1];
  const [least, most] = said === undefined ? need.steps : [Number(said), Number(said)];
  const { schedulerName, steps, guidanceScale } = sampling;
  const misses = [
    ...(need.schedulers.includes(schedulerName) ? [] : [`scheduler ${schedulerName}`]),
    ...(steps >= least && steps <= most ? [] : [`${steps} step(s)`]),
    ...(guidanceScale <= Math.max(1, need.guidance) ? [] : [`guidance ${guidanceScale}`]),
  ];
  if (misses.length === 0) return undefined;
  const range = least === most ? String(least) : `${least} to ${most}`;
  const guidance = need.guidance <= 1 ? "guidance 0" : `guidance up to ${need.guidance}`;
  return (
    `The LoRA ${text.split("/").at(-1)} (${need.name}) was made for ${need.schedulers.join(" or ")}, ${range} step(s) and ` +
    `${guidance}; got ${misses.join(", ")}. Set scheduler, numInferenceSteps and guidanceScale to that.`
  );
}
