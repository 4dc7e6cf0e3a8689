/**
 * `<mixdq-image prompt="a blue tent by a lake" model="models/postcard" precision="w4a8" seed="7">`: a generated picture
 * where an <img> could stand. Importing this file does nothing; `defineMixdqImage()` makes the tag known.
 *
 * Attributes: `prompt` and `model` (nothing happens without both), `negative-prompt`, `precision`, `config`, `seed`,
 * `steps`, `guidance`, `width`, `height`; they mean what the options of createEngine and generate mean. A change begins
 * another picture and cancels the one that is being made, unless that will be there within a second: typing into `prompt`
 * shows pictures. Removing the element frees its engine.
 *
 * Events, none of which bubbles, as with <img>: `progress` (detail: LoadProgress), `step` (StepEvent), `load`
 * (GeneratedImage), `error` (MixdqError). Parts for styles: `picture`, `progress`, `error`.
 */
import type { GeneratedImage } from "./index.ts";
import { type SharedEngine, type SharedOptions, acquire, engineKey } from "./sharedEngine.ts";
import type { Precision } from "./base/types.ts";

const ATTRIBUTES = [
  ...["prompt", "negative-prompt", "model", "precision", "config"],
  ...["seed", "steps", "guidance", "width", "height"],
] as const;

/** Does nothing when the tag is taken. Only in a browser. */
export function defineMixdqImage(tag = "mixdq-image"): void {
  if (customElements.get(tag) === undefined) customElements.define(tag, createClass());
}

/** A function, because HTMLElement is missing where pages are rendered on a server. */
function createClass(): CustomElementConstructor {
  return class MixdqImage extends HTMLElement {
    static readonly observedAttributes = ATTRIBUTES;

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
      } catch (error) {
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

    /** What is no number becomes NaN, which `generate` refuses by name. */
    #number(name: string): number | undefined {
      const text = this.#text(name);
      return text === undefined ? undefined : Number(text);
    }

    #tell(type: string, detail: unknown): void {
      this.dispatchEvent(new CustomEvent(type, { detail }));
    }
  };
}

const STYLE = `
  :host { display: inline-block; position: relative; min-width: 64px; min-height: 64px; }
  :host([hidden]), [hidden] { display: none !important; }
  canvas { display: block; width: 100%; }
  progress { position: absolute; inset: auto 10% 12px; width: 80%; height: 6px; }
  p { margin: 0; padding: 1em; font-size: 0.875em; overflow-wrap: anywhere; }
`;
