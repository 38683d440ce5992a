// Calls of the relay.

/** An answer that is no success, with the sentence of the relay. */
export class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    Object.assign(this, { status, code });
  }
}

/** Whoever has no session (any more) is led to the login. */
function toLogin() {
  location.assign('/');
}

async function read(response) {
  const body = await response.json().catch(() => null);
  if (response.ok && body) return body;
  if (response.status === 401) toLogin();
  const { code = 'unknown', message = `The relay answered with status ${response.status}.` } = body?.error ?? {};
  throw new Refused(response.status, code, message);
}

export async function get(path, signal) {
  return read(await fetch(path, { signal, headers: { accept: 'application/json' }, cache: 'no-store' }));
}

export async function post(path, body = {}) {
  const headers = { 'content-type': 'application/json', accept: 'application/json' };
  return read(await fetch(path, { method: 'POST', headers, body: JSON.stringify(body) }));
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
