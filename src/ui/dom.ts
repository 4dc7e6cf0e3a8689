/** Shows or hides what has this id. Keyboard focus that would be lost with it goes to what the page is for. */
export function show(id: string, visible: boolean): void {
  const element = byId(id, HTMLElement);
  const hadFocus = element.contains(document.activeElement);
  element.hidden = !visible;
  if (!visible && hadFocus) byId("generate", HTMLButtonElement).focus({ preventScroll: true });
}

/** Unlike a disabled control, a busy one keeps the keyboard's focus. What listens to it must not act meanwhile. */
export function setBusy(element: HTMLElement, isBusy: boolean): void {
  if (isBusy) element.ariaDisabled = "true";
  else element.removeAttribute("aria-disabled");
}

/** The element with this id, checked: a renamed id fails at the start of the page and not at the first click. */
export function byId<T extends HTMLElement>(id: string, type: abstract new () => T): T {
  const element = document.getElementById(id);
  if (element instanceof type) return element;
  throw new TypeError(`index.html: #${id} is ${element?.tagName ?? "missing"}, expected a ${type.name}.`);
}
