// The dashboard: where it is, what it hears, and what is shown of it.

import { logOut } from './api.js';
import { Client } from './client.js';
import { h, setAttribute, setText } from './dom.js';
import { Events } from './events.js';
import { Fleet } from './fleet.js';
import { number, setClock, span, time } from './format.js';
import { History } from './history.js';
import { Keys } from './keys.js';
import { Live } from './live.js';
import { address, parse, VIEWS } from './route.js';
import { listen } from './shortcuts.js';
import { repaint } from './strip.js';
import { Tunnel } from './tunnel.js';
import { Tunnels } from './tunnels.js';

/** What is made for each view, and for one thing of it. */
const MAKERS = {
  fleet: { list: Fleet, detail: Client },
  tunnels: { list: Tunnels, detail: Tunnel },
  events: { list: Events },
  keys: { list: Keys },
};
/** What no stream brings is asked for so often, in milliseconds. */
const TICK = 2_000;
/** Counts are said at most so often. */
const SAYING = 10_000;
const TOAST = 6_000;

const byId = (id) => document.getElementById(id);
const [main, said, toasts, notices] = ['main', 'said', 'toasts', 'notices'].map(byId);
const live = new Live();
const history = new History();

let view = null;
let shown = { view: null, id: null, values: {} };
let paused = false;
let last = null;
let counts = { text: '', at: 0 };

/**
 * What views may do with the page. What a view may have, beside `node`, `title`, `update(values)` and `close()`: `opened()`,
 * `summary`, `page` and `events` for what the stream brings, `tick()` for what it does not, `rest()` when it is paused,
 * `repaint()` in other colours, `list`, and `heading` if it is a detail. While the page is paused, none of those that bring
 * something new is called: views need not know.
 */
const page = {
  live,
  history,
  say: (text) => setText(said, text),
  toast,
  named: name,
};

// Where it is.

const links = Object.entries(VIEWS).map(([key, label]) => h('a', { href: address(key), data: { view: key } }, label));
byId('nav').append(...links);

function navigate() {
  const to = parse(location.hash);
  if (!MAKERS[to.view].detail) to.id = null;
  const same = to.view === shown.view && to.id === shown.id;
  if (!same) {
    const [first, deeper] = [view === null, Boolean(to.id) || Boolean(shown.id)];
    view?.close();
    const { list, detail } = MAKERS[to.view];
    view = to.id ? new detail(page, to.id) : new list(page);
    main.replaceChildren(view.node);
    view.opened?.();
    if (last) view.summary?.(last);
    for (const link of links) setAttribute(link, 'aria-current', link.dataset.view === to.view ? 'page' : null);
    scrollTo(0, 0);
    // A screen reader starts where the new content does; the first load is left to it.
    if (!first) (view.heading?.querySelector('h1') ?? main).focus({ preventScroll: true });
    if (deeper) setText(said, '');
  }
  shown = to;
  view.update(to.values);
  name();
}

function name() {
  const dead = last?.clients.dead ? `(${number(last.clients.dead)} dead) ` : '';
  document.title = `${dead}${view.title} – Adit`;
}

// What it hears.

live.addEventListener('summary', ({ detail }) => {
  last = detail;
  setClock(detail.at);
  history.add(detail);
  if (!paused) summary(detail);
});
live.addEventListener('page', ({ detail }) => paused || view.page?.(detail));
live.addEventListener('events', ({ detail }) => paused || view.events?.(detail.events));
setInterval(() => paused || view.tick?.(), TICK);
live.addEventListener('state', state);

function summary(what) {
  view.summary?.(what);
  name();
  foot(what);
  tell(what.clients);
}

/** How many live, for whoever listens, when it has changed and not too often. */
function tell({ alive, late, dead, away }) {
  const text = `${number(alive)} alive, ${number(late)} late, ${number(dead)} dead, ${number(away)} away`;
  const now = Date.now();
  if (text === counts.text || now - counts.at < SAYING) return;
  if (counts.text) setText(said, text);
  counts = { text, at: now };
}

function foot(summary) {
  const { relay } = summary;
  setText(byId('foot'), `adit ${relay.version} at ${relay.url}, up ${span(summary.at - relay.started_at)}`);
  notice('draining', relay.state === 'draining' && 'The relay is shutting down: clients are told to connect anew, and nothing new is taken.');
}

// What is shown of the connection.

function state() {
  const label = { connecting: 'Connecting', live: paused ? 'Paused' : 'Live', lost: 'Lost' }[live.state];
  const badge = byId('live');
  setText(badge, label);
  badge.dataset.state = live.state === 'live' && paused ? 'paused' : live.state;
  document.body.classList.toggle('stale', live.state === 'lost');
  lost();
}

function lost() {
  if (live.state !== 'lost') {
    notice('lost', false);
    return;
  }
  const seconds = live.next ? Math.ceil((live.next - Date.now()) / 1000) : 0;
  notice('lost', `The connection to the relay was lost. What you see is from ${time(live.heard)}.`, seconds > 0 ? ` Trying again in ${seconds} s.` : ' Trying again.');
}
setInterval(() => live.state === 'lost' && lost(), 1_000);

/** `text` is said once; `more` may change each second without being said. */
function notice(id, text, more = '') {
  let node = byId(`notice-${id}`);
  if (!text) {
    node?.remove();
    return;
  }
  if (!node) {
    const retry = id === 'lost' && h('button', { type: 'button', on: { click: () => live.retry() } }, 'Try now');
    node = h('div', { class: 'notice', id: `notice-${id}`, data: { kind: id } }, h('span', { role: 'alert' }), h('span', { class: 'more' }), retry);
    notices.append(node);
  }
  setText(node.children[0], text);
  setText(node.children[1], more);
}

function toast(text) {
  const node = h('p', { class: 'toast' }, text);
  toasts.append(node);
  setTimeout(() => node.remove(), TOAST);
}

function pause() {
  paused = !paused;
  setAttribute(byId('pause'), 'aria-pressed', paused);
  setText(byId('pause'), paused ? 'Go on' : 'Pause');
  state();
  if (paused) {
    view.rest?.();
    return;
  }
  // What came meanwhile was let go: all of it is asked for.
  view.opened?.();
  view.update(shown.values);
  if (last) summary(last);
}

// The rest.

byId('pause').addEventListener('click', pause);
byId('logout').addEventListener('click', logOut);
const shortcuts = listen({ view: () => view, pause });
byId('help').addEventListener('click', shortcuts);
addEventListener('hashchange', navigate);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
  repaint();
  view?.repaint?.();
});
navigate();
