// The fleet: who is alive.

import { Charts } from './charts.js';
import { h, setAttribute, setText } from './dom.js';
import { date, number, span, time, title, wait } from './format.js';
import { Latest } from './latest.js';
import { List, text } from './list.js';
import { HealthMark } from './marks.js';
import { address } from './route.js';
import { Strip } from './strip.js';

const HEALTH = ['alive', 'late', 'dead', 'away'];
const MEANS = {
  alive: 'answers pings',
  late: 'a pong is overdue',
  dead: 'lost, not back yet',
  away: 'left in order',
};
/** On a phone a strip is as wide as its card. */
const STRIP = matchMedia('(max-width: 760px)').matches ? { width: Math.min(innerWidth - 54, 600), height: 26 } : { width: 180, height: 22 };

export const LEVELS = { base: 'base', two: 'level two' };

/** Columns of clients, in the fleet and in a tunnel. */
export const COLUMNS = [
  {
    id: 'health', label: 'Health', sort: 'health',
    make(cell) {
      const mark = new HealthMark();
      cell.append(mark.node);
      return (client) => mark.set(client.health);
    },
  },
  {
    id: 'tunnel', label: 'Client', sort: 'tunnel', main: true,
    make(cell) {
      const [link, owner] = [h('a', { class: 'open', tabindex: -1 }), h('span', { class: 'sub' })];
      cell.append(link, owner);
      return (client) => {
        setText(link, client.tunnel);
        setAttribute(link, 'href', address('fleet', client.id));
        setText(owner, client.owner);
      };
    },
  },
  {
    id: 'strip', label: 'Last hour',
    make(cell) {
      const strip = new Strip(STRIP.width, STRIP.height);
      cell.append(strip.node);
      return (client) => strip.set(client.strip);
    },
  },
  text('round_trip', 'Round trip', (client) => wait(client.round_trip_ms), { sort: 'round_trip', first: 'desc', numeric: true }),
  text('p99', 'p99', (client) => wait(client.p99_ms), { sort: 'p99', first: 'desc', numeric: true, about: 'What 99 of 100 round trips are not above' }),
  {
    id: 'missed', label: 'Missed', sort: 'missed', first: 'desc', numeric: true, about: 'Pings without a pong',
    make: (cell) => (client) => {
      setText(cell, number(client.missed));
      cell.classList.toggle('some', client.missed > 0);
    },
  },
  text('silence', 'Silent for', (client) => span(client.silence_ms), { sort: 'silence', first: 'desc', numeric: true }),
  text('reconnects', 'Reconnects', (client) => number(client.reconnects), { sort: 'reconnects', first: 'desc', numeric: true }),
  {
    id: 'agent', label: 'Program', sort: 'agent',
    make(cell) {
      const [agent, level] = [h('span', { class: 'cut' }), h('span', { class: 'sub' })];
      cell.append(agent, level);
      return (client) => {
        setText(agent, client.agent ?? 'unknown');
        setAttribute(agent, 'title', client.agent);
        setText(level, LEVELS[client.level] ?? client.level);
      };
    },
  },
  text('address', 'Address', (client) => client.address, { sort: 'address' }),
  {
    id: 'since', label: 'Since', sort: 'since',
    make(cell) {
      let shown = null;
      return (client) => {
        setText(cell, time(client.since));
        if (client.since !== shown) setAttribute(cell, 'title', date(client.since));
        shown = client.since;
      };
    },
  },
];

const SPEC = {
  view: 'fleet', path: '/api/clients', rows: 'clients', noun: 'client', label: 'Clients',
  key: (client) => client.id,
  columns: COLUMNS, sort: 'health', order: 'asc',
  filter: { name: 'health', label: 'Health', options: HEALTH, look: (health) => health, word: title },
  hint: 'No client has connected yet. Start one with: adit http 3000',
};

export class Fleet {
  #list;
  #charts;
  #latest;
  #tiles = new Map();
  #figures = {};

  constructor(page) {
    this.title = 'Fleet';
    this.#list = new List(SPEC, page);
    this.#charts = new Charts(page.history);
    this.#latest = new Latest(page);
    const shown = !matchMedia('(max-width: 760px)').matches;
    this.node = h('div', { class: 'view fleet' },
      h('h1', { class: 'hidden' }, 'Fleet'),
      h('section', { class: 'figures', 'aria-label': 'The fleet in figures' }, this.#health(), this.#others()),
      h('details', { class: 'charts', open: shown }, h('summary', null, 'Over time'), h('div', { class: 'panels' }, this.#charts.nodes, this.#latest.node)),
      this.#list.node);
    // When it is put into the page, too, if it is open.
    this.node.querySelector('details').addEventListener('toggle', (event) => event.target.open && this.#charts.build());
  }

  #health() {
    return h('div', { class: 'tiles' }, HEALTH.map((health) => {
      const value = h('span', { class: 'value' }, '–');
      const tile = h('button', { type: 'button', class: 'tile', 'aria-pressed': 'false', title: `Show those that are ${health}: ${MEANS[health]}`, data: { look: health }, on: { click: () => this.#list.toggle(health) } },
        h('span', { class: 'name' }, h('i', { class: 'shape', 'aria-hidden': 'true' }), title(health)), value, h('span', { class: 'sub' }, MEANS[health]));
      this.#tiles.set(health, { tile, value });
      return tile;
    }));
  }

  #others() {
    const figure = (id, label, sub) => {
      const [value, below] = [h('dd', { class: 'value' }, '–'), h('dd', { class: 'sub' }, sub)];
      this.#figures[id] = { value, below };
      return h('div', { class: 'stat' }, h('dt', null, label), value, below);
    };
    return h('dl', { class: 'stats' },
      figure('now', 'Round trip now', 'median of the last pongs'),
      figure('p99', 'Round trip p99', 'since the start'),
      figure('missed', 'Pongs missed', ''),
      figure('reconnects', 'Reconnects', ''),
      figure('silence', 'Longest silence', 'of a connected client'));
  }

  summary(summary) {
    const { clients, round_trip: trip, pings } = summary;
    for (const [health, { value }] of this.#tiles) setText(value, number(clients[health]));
    const set = (id, value, below) => {
      setText(this.#figures[id].value, value);
      if (below !== undefined) setText(this.#figures[id].below, below);
    };
    set('now', wait(trip.now_ms));
    set('p99', wait(trip.p99_ms), `p50 ${wait(trip.p50_ms)}, since the start`);
    set('missed', number(pings.missed), `of ${number(pings.sent)} pings`);
    set('reconnects', number(summary.reconnects), `sessions: ${number(summary.sessions.base)} base, ${number(summary.sessions.two)} two`);
    set('silence', span(summary.longest_silence_ms));
    this.#charts.update();
  }

  update(values) {
    this.#list.update(values);
    for (const [health, { tile }] of this.#tiles) setAttribute(tile, 'aria-pressed', this.#list.chosen(health));
  }

  opened() {
    this.#latest.load();
  }

  get list() {
    return this.#list;
  }

  page(page) {
    this.#list.show(page);
  }

  events(events) {
    this.#latest.add(events);
  }

  repaint() {
    if (this.node.querySelector('details').open) this.#charts.build();
  }

  close() {
    this.#charts.close();
    this.#list.close();
  }
}
