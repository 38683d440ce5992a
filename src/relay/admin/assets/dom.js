// Elements with text that nobody can turn into markup.

/** An element. `props`: `class`, `on` (listeners by event), `data`, and attributes; false and null leave one out. */
export function h(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === false || value === null || value === undefined) continue;
    if (name === 'class') node.className = value;
    else if (name === 'on') for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (name === 'data') Object.assign(node.dataset, value);
    else node.setAttribute(name, value === true ? '' : value);
  }
  // Strings become text nodes.
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** What `setText` gave a node; to read it from the node takes longer. */
const TEXT = Symbol('text');

/** Sets text only where it differs: what has not changed costs no layout and disturbs no selection. */
export function setText(node, text) {
  const value = text === null || text === undefined ? '' : String(text);
  if (node[TEXT] === value) return;
  node[TEXT] = value;
  node.textContent = value;
}

/** The same for an attribute; null takes it out. */
export function setAttribute(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) {
    node.setAttribute(name, value);
  }
}

/** Calls `action` when nobody has asked for `wait` milliseconds. */
export function settled(wait, action) {
  let timer;
  const ask = (...values) => {
    clearTimeout(timer);
    timer = setTimeout(action, wait, ...values);
  };
  ask.cancel = () => clearTimeout(timer);
  return ask;
}

/** Where an address leads if a browser may go there, or null: what a client sent may be `javascript:`. */
export function webAddress(text) {
  try {
    const url = new URL(text);
    return url.protocol === 'https:' || url.protocol === 'http:' ? url.href : null;
  } catch {
    return null;
  }
}
