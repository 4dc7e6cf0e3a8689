/**
 * How a model is named: a hub's id (`owner/name`, `owner/name@revision`, `owner/name@revision#folder/within`, with `hf://`
 * before it or without), the address of its page there, or any other address under which its files lie. Plain data, so
 * that it can be sent to a worker.
 */
import { invalidInput } from "../base/errors.ts";
import { redactAddress } from "../base/redact.ts";
import { hubFiles } from "./hub.ts";
import type { RemoteFiles } from "./files.ts";
import { httpFiles, type HttpOptions } from "./http.ts";

/** A model on a hub that speaks Hugging Face's API. */
export interface HubAddress {
  readonly kind: "hub";
  /** Without a last slash, such as https://huggingface.co. */
  readonly host: string;
  /** owner/name. */
  readonly id: string;
  /** A branch, a tag or a commit. */
  readonly revision: string;
  /** The folder of the repository that holds the model; "" for the whole. */
  readonly folder: string;
  readonly token: string | undefined;
}

export type ModelAddress = HubAddress | { readonly kind: "url"; readonly url: string };

export interface HubSettings {
  readonly host: string;
  readonly token: string | undefined;
}

export const DEFAULT_HOST = "https://huggingface.co";
export const DEFAULT_REVISION = "main";

/** Part of an id: what the hub allows as the name of an owner or of a repository. */
const NAME = "[A-Za-z0-9](?:[\\w.-]{0,94}[A-Za-z0-9_])?";
const ID = new RegExp(`^(${NAME}/${NAME})(?:@([^#\\s]+))?(?:#(\\S*))?$`);
/** Routes of the hub's own site, so that no owner is called that: such names are folders beside the page. */
const ROUTES = new Set(["models", "datasets", "spaces", "api", "docs"]);
const FILE = /\.(safetensors|ckpt|json|bin|pt)$/i;

/** The hub's model that a text names, or undefined where it is another address. Throws `invalid-input`. */
export function hubAddress(text: string, settings: HubSettings): HubAddress | undefined {
  const host = hostOf(settings.host);
  const isExplicit = text.startsWith("hf://");
  const plain = isExplicit ? text.slice("hf://".length) : (idOfPage(text, host) ?? text);
  const [, id, revision = DEFAULT_REVISION, folder = ""] = ID.exec(plain) ?? [];
  const isId = id !== undefined && (isExplicit || (!ROUTES.has(id.split("/")[0]) && !FILE.test(id)));
  if (!isId) {
    if (!isExplicit) return undefined;
    throw invalidInput(
      `model: got ${JSON.stringify(text)}, expected hf://owner/name[@revision][#folder]. Check the id.`,
    );
  }
  const parts = [...revision.split("/"), ...(folder === "" ? [] : folder.replace(/\/$/, "").split("/"))];
  if (parts.some((part) => part === "" || part === "." || part === ".."))
    throw invalidInput(
      `model: got ${JSON.stringify(text)}, expected owner/name[@revision][#folder] with plain names. Check revision and folder.`,
    );
  return { kind: "hub", host, id, revision, folder: folder.replace(/\/$/, ""), token: settings.token };
}

/** As `hubAddress` reads it; what people see, type and list. */
export function nameOfHubModel({ id, revision, folder }: HubAddress): string {
  return `${id}${revision === DEFAULT_REVISION ? "" : `@${revision}`}${folder === "" ? "" : `#${folder}`}`;
}

/** What a model is called in lists and messages, without secrets. */
export function nameOfModel(address: ModelAddress): string {
  return address.kind === "hub" ? nameOfHubModel(address) : redactAddress(address.url).replace(/\/$/, "");
}

/** The files of a model, over HTTP. Nothing is asked before the first file is. */
export function remoteFiles(address: ModelAddress, options: Omit<HttpOptions, "token"> = {}): RemoteFiles {
  return address.kind === "hub" ? hubFiles(address, options) : httpFiles(address.url, options);
}

function hostOf(host: string): string {
  const url = URL.canParse(host) ? new URL(host) : undefined;
  if (url?.protocol !== "https:" && url?.protocol !== "http:")
    throw invalidInput(
      `The hub's address is ${JSON.stringify(redactAddress(host))}, expected http(s)://host, such as ${DEFAULT_HOST}.`,
    );
  return url.href.replace(/\/+$/, "");
}

/** `owner/name@revision#folder` from the address of a model's page on the hub, or of a folder of it. */
function idOfPage(text: string, host: string): string | undefined {
  if (!text.startsWith(`${host}/`)) return undefined;
  const path = text.slice(host.length + 1).replace(/[?#].*$/, "");
  const [, id, revision, folder] = new RegExp(`^(${NAME}/${NAME})(?:/tree/([^/]+)(?:/(.+))?)?/?$`).exec(path) ?? [];
  if (id === undefined) return undefined;
  const of = (part: string | undefined, sign: string): string => (part ? sign + decodeURIComponent(part) : "");
  return `${id}${of(revision, "@")}${of(folder?.replace(/\/$/, ""), "#")}`;
}
