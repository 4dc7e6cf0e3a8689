/**
 * `<mixdq-image prompt="a blue tent by a lake" model="models/postcard" precision="w4a8" seed="7">`: a generated picture
 * where an <img> could stand. Importing this file does nothing; `defineMixdqImage()` makes the tag known.
 *
 * Attributes: `prompt` and `model` (nothing happens without both), `negative-prompt`, `precision`, `config`, `seed`,
 * `steps`, `guidance`, `width`, `height`; they mean what the options of createEngine and generate mean. Each is a property
 * too (`element.negativePrompt = "fog"`, `element.seed = 7`; undefined removes the attribute), also when it was set before the
 * tag was known. `element.image` is the picture that is shown. A change begins
 * another picture and cancels the one that is being made, unless that will be there within a second: typing into `prompt`
 * shows pictures. Removing the element frees its engine.
 *
 * Events, none of which bubbles, as with <img>: `progress` (detail: LoadProgress), `step` (StepEvent), `load`
 * (GeneratedImage), `error` (MixdqError). Parts for styles: `picture`, `progress`, `error`.
 */
import { renamed, rightName } from "./api/options.ts";
import { invalidInput, type MixdqError } from "./base/errors.ts";
import { show } from "./base/printable.ts";
import type { GeneratedImage } from "./index.ts";
import { type SharedEngine, type SharedOptions, acquire, engineKey } from "./sharedEngine.ts";
import type { LoadProgress, Precision, StepEvent } from "./base/types.ts";

/** Every attribute, as the property that mirrors it. */
const TEXTS = {
  prompt: "prompt",
  negativePrompt: "negative-prompt",
  model: "model",
  precision: "precision",
  config: "config",
} as const;
const NUMBERS = { seed: "seed", steps: "steps", guidance: "guidance", width: "width", height: "height" } as const;
const ATTRIBUTES = { ...TEXTS, ...NUMBERS };
const NAMES: readonly string[] = Object.values(ATTRIBUTES);

/** What `generate` calls them. */
const OPTION_NAMES = {
  numInferenceSteps: "steps",
  guidanceScale: "guidance",
  negativePrompt: "negative-prompt",
} as const;
const NAMES_OF_OPTIONS: Readonly<Record<string, string>> = {
  ...Object.fromEntries(NAMES.map((name) => [name, name])),
  ...OPTION_NAMES,
};

/** The element's events by name; none bubbles, as with <img>. */
export interface MixdqImageEventMap {
  /** While the model loads. */
  progress: CustomEvent<LoadProgress>;
  /** A stage of the picture begins. */
  step: CustomEvent<StepEvent>;
  /** A picture is shown. */
  load: CustomEvent<GeneratedImage>;
  /** The model did not load, or the picture failed; the message is shown in its place. */
  error: CustomEvent<MixdqError>;
}

/** What `document.createElement("mixdq-image")` returns, once defineMixdqImage() was called. */
export interface MixdqImageElement extends HTMLElement {
  /** What the picture shows; without it nothing happens. Each property mirrors an attribute, undefined removes it. */
  prompt: string | undefined;
  /** What it does not show, where `guidance` is above 1. */
  negativePrompt: string | undefined;
  /** URL of a diffusers folder or a pack, relative to the page; without it nothing happens. */
  model: string | undefined;
  /** Default: fp16; of a pack, what it was made for. */
  precision: Precision | undefined;
  /** URL of a bit-width configuration (mixdq.json). Default: the model's own. */
  config: string | undefined;
  /** Of the start noise. Default: random. */
  seed: number | undefined;
  /** `numInferenceSteps` of `generate`. Default: the model's own. */
  steps: number | undefined;
  /** `guidanceScale` of `generate`. Default: the model's own. */
  guidance: number | undefined;
  /** Pixels of the picture, a multiple of 8; styles say how large it is shown. Default: the model's own. */
  width: number | undefined;
  /** Pixels of the picture, a multiple of 8; styles say how large it is shown. Default: the model's own. */
  height: number | undefined;
  /** The picture that is shown. */
  readonly image: GeneratedImage | undefined;
  addEventListener<K extends keyof MixdqImageEventMap>(
    type: K,
    listener: (this: MixdqImageElement, event: MixdqImageEventMap[K]) => unknown,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject,
    options?: boolean | AddEventListenerOptions,
  ): void;
}

declare global {
  interface HTMLElementTagNameMap {
    "mixdq-image": MixdqImageElement;
  }
}

/** Makes the tag known, so that <mixdq-image> is a picture. Does nothing when the tag is taken. Only in a browser. */
export function defineMixdqImage(tag = "mixdq-image"): void {
  if (customElements.get(tag) === undefined) customElements.define(tag, withProperties(createClass()));
}

/** A function, because HTMLElement is missing where pages are rendered on a server. */
function createClass(): CustomElementConstructor {
  return class MixdqImage extends HTMLElement {
    static readonly observedAttributes = NAMES;

    /** The picture that is shown. */
    image: GeneratedImage | undefined;

    readonly #canvas = document.createElement("canvas");
    readonly #bar = document.createElement("progress");
    readonly #message = document.createElement("p");
    /** The request that was made last. */
    #newest: object | undefined;
    #isScheduled = false;
    #held: SharedEngine | undefined;

    constructor() {
      super();
      const root = this.attachShadow({ mode: "open" });
      const sheet = new CSSStyleSheet();
      sheet.replaceSync(STYLE);
      root.adoptedStyleSheets = [sheet];
      this.#canvas.setAttribute("part", "picture");
      this.#canvas.role = "img";
      this.#bar.setAttribute("part", "progress");
      this.#bar.max = 100;
      this.#message.setAttribute("part", "error");
      this.#message.role = "alert";
      root.append(this.#canvas, this.#bar, this.#message);
      this.#show(undefined);
    }

    connectedCallback(): void {
      takeEarlyProperties(this);
      this.#schedule();
    }

    /** Also called when the element is only moved: then it is back before the microtask. */
    disconnectedCallback(): void {
      this.#schedule();
    }

    attributeChangedCallback(): void {
      this.#schedule();
    }

    /** Attributes that are set together make one picture. */
    #schedule(): void {
      if (this.#isScheduled) return;
      this.#isScheduled = true;
      queueMicrotask(() => {
        this.#isScheduled = false;
        if (this.isConnected && this.getAttribute("prompt") && this.getAttribute("model")) void this.#make();
        else {
          this.#newest = undefined;
          this.#letGo();
        }
      });
    }

    async #make(): Promise<void> {
      const request = (this.#newest = {});
      const prompt = this.getAttribute("prompt") ?? "";
      this.#show(this.#bar);
      this.#bar.removeAttribute("value");
      try {
        checkAttributes(this);
        const image = await this.#engine().generate({
          prompt,
          negativePrompt: this.#text("negative-prompt"),
          seed: this.#text("seed"),
          numInferenceSteps: this.#number("steps"),
          guidanceScale: this.#number("guidance"),
          width: this.#number("width"),
          height: this.#number("height"),
          onStep: (event) => this.#tell("step", event),
        });
        this.#draw(image, prompt);
        this.#show(this.#newest === request ? this.#canvas : this.#bar);
        this.#tell("load", image);
      } catch (thrown) {
        const error = renamed(thrown, NAMES_OF_OPTIONS);
        if (this.#newest !== request) return; // another picture, or none, is wanted by now
        this.#message.textContent = error instanceof Error ? error.message : String(error);
        this.#show(this.#message);
        this.#tell("error", error);
      }
    }

    #engine(): SharedEngine {
      const options: SharedOptions = {
        model: this.getAttribute("model") ?? "",
        precision: this.#text("precision") as Precision | undefined,
        config: this.#text("config"),
      };
      if (this.#held?.key !== engineKey(options) || this.#held.isBroken) {
        this.#letGo();
        this.#held = acquire(options, (progress) => {
          this.#bar.value = progress.progress;
          this.#tell("progress", progress);
        });
      }
      return this.#held;
    }

    #letGo(): void {
      const held = this.#held;
      this.#held = undefined;
      held?.release();
    }

    #draw(image: GeneratedImage, prompt: string): void {
      this.image = image;
      this.#canvas.ariaLabel = prompt;
      this.#canvas.width = image.width;
      this.#canvas.height = image.height;
      this.#canvas.getContext("2d")?.putImageData(image.toImageData(), 0, 0);
    }

    /** An earlier picture stays under the bar. */
    #show(part: HTMLElement | undefined): void {
      this.#canvas.hidden = !this.image || part === this.#message;
      this.#bar.hidden = part !== this.#bar;
      this.#message.hidden = part !== this.#message;
    }

    #text(name: string): string | undefined {
      return this.getAttribute(name) || undefined;
    }

    /** `checkAttributes` has seen that it is one. */
    #number(name: string): number | undefined {
      const text = this.#text(name);
      return text === undefined ? undefined : Number(text);
    }

    #tell(type: string, detail: unknown): void {
      this.dispatchEvent(new CustomEvent(type, { detail }));
    }
  };
}

/** Accessors on the class, so that a framework finds them with `in` and sets them instead of attributes. */
function withProperties(type: CustomElementConstructor): CustomElementConstructor {
  for (const [property, attribute] of Object.entries(ATTRIBUTES)) {
    const isNumber = property in NUMBERS;
    Object.defineProperty(type.prototype, property, {
      configurable: true,
      enumerable: true,
      get(this: HTMLElement): string | number | undefined {
        const text = this.getAttribute(attribute);
        if (text === null) return undefined;
        return isNumber ? numberOf(text) : text;
      },
      set(this: HTMLElement, value: unknown): void {
        if (value === undefined || value === null) this.removeAttribute(attribute);
        else this.setAttribute(attribute, String(value));
      },
    });
  }
  return type;
}

/** What was set before the class was known lies on the element itself and hides the accessor. */
function takeEarlyProperties(element: HTMLElement): void {
  for (const property of Object.keys(ATTRIBUTES)) {
    if (!Object.hasOwn(element, property)) continue;
    const early = element as unknown as Record<string, unknown>;
    const value = early[property];
    delete early[property];
    early[property] = value;
  }
}

/** Number("") and Number(" ") are 0. */
const numberOf = (text: string): number => (text.trim() === "" ? NaN : Number(text));

/** Attributes of every element, and those that frameworks add. */
const FOREIGN = /^(id|class|style|slot|part|title|lang|dir|role|hidden|tabindex|is|on\w+|(data|aria)-.*|.*[:@.].*)$/;

/** Throws `invalid-input` for a number that is none, and for a name that must have meant one of ours. */
function checkAttributes(element: HTMLElement): void {
  for (const name of element.getAttributeNames()) {
    if (NAMES.includes(name) || FOREIGN.test(name)) continue;
    const meant = rightName(name, [...NAMES, ...Object.keys(OPTION_NAMES)]);
    const advice = meant && (NAMES_OF_OPTIONS[meant] ?? meant);
    if (advice) throw invalidInput(`<mixdq-image>: got an unknown attribute ${show(name)}, did you mean ${advice}?`);
  }
  for (const name of Object.values(NUMBERS)) {
    const text = element.getAttribute(name);
    if (text !== null && text !== "" && !Number.isFinite(numberOf(text)))
      throw invalidInput(`${name}: got ${show(text)}, expected a number.`);
  }
}

const STYLE = `
  :host { display: inline-block; position: relative; min-width: 64px; min-height: 64px; }
  :host([hidden]), [hidden] { display: none !important; }
  canvas { display: block; width: 100%; }
  progress { position: absolute; inset: auto 10% 12px; width: 80%; height: 6px; }
  p { margin: 0; padding: 1em; font-size: 0.875em; overflow-wrap: anywhere; }
`;
