// Where the page is: `#/fleet?search=a&page=2` or `#/fleet/ID`.

import { query } from './api.js';

/** The views and their names, in their order. */
export const VIEWS = { fleet: 'Fleet', tunnels: 'Tunnels', events: 'Events', keys: 'Keys' };

/** `{view, id, values}` of an address; what is not known leads to the fleet. */
export function parse(hash) {
  const [path, search = ''] = hash.replace(/^#\/?/, '').split(/\?(.*)/s);
  const [view, id] = path.split('/');
  return {
    view: Object.hasOwn(VIEWS, view) ? view : 'fleet',
    id: id ? decode(id) : null,
    values: Object.fromEntries(new URLSearchParams(search)),
  };
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function address(view, id = null, values = {}) {
  const search = query(values);
  return `#/${view}${id ? `/${encodeURIComponent(id)}` : ''}${search ? `?${search}` : ''}`;
}

/** Goes there; `quietly` without a step in the browser's history. */
export function go(to, quietly = false) {
  if (to === location.hash) return;
  if (!quietly) location.hash = to;
  else {
    history.replaceState(null, '', to);
    dispatchEvent(new HashChangeEvent('hashchange'));
  }
}
