/** The element with this id, checked: a renamed id fails at the start of the page and not at the first click. */
export function byId<T extends HTMLElement>(id: string, type: abstract new () => T): T {
  const element = document.getElementById(id);
  if (element instanceof type) return element;
  throw new TypeError(`index.html: #${id} is ${element?.tagName ?? "missing"}, expected a ${type.name}.`);
}
