// Calls of the relay.

/** An answer that is no success, with the sentence of the relay. */
export class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    Object.assign(this, { status, code });
  }
}

/** There was no answer, or only a part of one. */
export class Unreachable extends Error {
  constructor(cause) {
    super('The relay does not answer. Try again when it does.', { cause });
  }
}

/** Whoever has no session (any more) is led to the login. */
function toLogin() {
  location.assign('/');
}

async function call(address, options) {
  let [response, body, failure] = [null, null, null];
  try {
    response = await fetch(address, options);
    body = await response.json();
  } catch (error) {
    options.signal?.throwIfAborted();
    failure = error;
  }
  if (!response || (response.ok && failure)) throw new Unreachable(failure);
  if (response.ok) return body;
  if (response.status === 401) toLogin();
  const { code = 'unknown', message = `The relay answered with status ${response.status}.` } = body?.error ?? {};
  throw new Refused(response.status, code, message);
}

/** The address of one thing: `path('clients', id)`. */
export const path = (...parts) => `/api/${parts.map(encodeURIComponent).join('/')}`;

/** What is there; `values` as of `query`. */
export function get(address, values = {}, signal = null) {
  const asked = query(values);
  return call(asked ? `${address}?${asked}` : address, { signal, headers: { accept: 'application/json' }, cache: 'no-store' });
}

export function post(address, body = {}) {
  const headers = { 'content-type': 'application/json', accept: 'application/json' };
  return call(address, { method: 'POST', headers, body: JSON.stringify(body) });
}

/** For who can wait: null in the place of an answer that was refused, did not come or is not wanted any more. */
export function unanswered(error) {
  if (error instanceof Refused || error instanceof Unreachable || error.name === 'AbortError') return null;
  throw error;
}

/** Ends the session; what the answer is makes no difference. */
export async function logOut() {
  await fetch('/logout', { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{}' }).catch(() => {});
  toLogin();
}

/** `{search: 'a', page: 1}` as a query, without what is empty. */
export function query(values) {
  const given = Object.entries(values).filter(([, value]) => value !== '' && value !== null && value !== undefined);
  return new URLSearchParams(given).toString();
}
