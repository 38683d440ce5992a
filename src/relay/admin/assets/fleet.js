// The fleet: who is alive.

import { Charts } from './charts.js';
import { h, setAttribute, setText } from './dom.js';
import { date, NONE, number, span, time, title, wait } from './format.js';
import { Latest } from './latest.js';
import { ListView } from './listview.js';
import { filter, HealthMark } from './marks.js';
import { address } from './route.js';
import { Stats } from './stats.js';
import { Strip } from './strip.js';
import { marked, text } from './table.js';

/** A phone, where rows are cards (views.css). */
const NARROW = matchMedia('(max-width: 760px)').matches;
/** On a phone a strip is as wide as its card. */
const STRIP = NARROW ? { width: Math.min(innerWidth - 54, 600), height: 26 } : { width: 180, height: 22 };

export const LEVELS = { base: 'base', two: 'level two' };

/** Columns of clients, in the fleet and in a tunnel. */
export const COLUMNS = [
  marked('health', 'Health', () => new HealthMark(), (client) => client.health, { sort: 'health' }),
  {
    id: 'tunnel', label: 'Client', sort: 'tunnel',
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
  text('silence', 'Silent for', (client) => span(client.silence_ms), { sort: 'silence', first: 'desc', numeric: true, about: 'Since its last pong, whatever else it sent' }),
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
  filter: filter('health', 'Health', HealthMark),
  hint: 'No client has connected yet. Start one with: adit http 3000',
};

export class Fleet extends ListView {
  #charts;
  #latest = new Latest();
  #tiles = new Map();
  #stats = new Stats([
    ['now', 'Round trip now', 'median of the last pongs'],
    ['p99', 'Round trip p99', 'since the start'],
    ['missed', 'Pongs missed'],
    ['reconnects', 'Reconnects'],
    ['silence', 'Longest silence', 'of a connected client'],
  ]);
  #over;

  constructor(page) {
    super(SPEC, page);
    this.#charts = new Charts(page.history);
    this.#over = h('details', { class: 'charts', open: !NARROW }, h('summary', null, 'Over time'), h('div', { class: 'panels' }, this.#charts.nodes, this.#latest.node));
    // When it is put into the page, too, if it is open.
    this.#over.addEventListener('toggle', () => this.repaint());
    this.node.prepend(h('h1', { class: 'hidden' }, this.title),
      h('section', { class: 'figures', 'aria-label': 'The fleet in figures' }, h('div', { class: 'tiles' }, HealthMark.words.map((health) => this.#tile(health))), this.#stats.node),
      this.#over);
  }

  #tile(health) {
    const [value, means] = [h('span', { class: 'value' }, NONE), HealthMark.means(health)];
    const tile = h('button', { type: 'button', class: 'tile', 'aria-pressed': 'false', title: `Show those that are ${health}: ${means}`, data: { look: health }, on: { click: () => this.list.toggle(health) } },
      h('span', { class: 'name' }, h('i', { class: 'shape', 'aria-hidden': 'true' }), title(health)), value, h('span', { class: 'sub' }, means));
    this.#tiles.set(health, { tile, value });
    return tile;
  }

  summary(summary) {
    const { clients, round_trip: trip, pings } = summary;
    for (const [health, { value }] of this.#tiles) setText(value, number(clients[health]));
    this.#stats.set('now', wait(trip.now_ms));
    this.#stats.set('p99', wait(trip.p99_ms), `p50 ${wait(trip.p50_ms)}, since the start`);
    this.#stats.set('missed', number(pings.missed), `of ${number(pings.sent)} pings`);
    const sessions = Object.entries(summary.sessions).map(([level, began]) => `${number(began)} ${level}`);
    this.#stats.set('reconnects', number(summary.reconnects), `sessions: ${sessions.join(', ')}`);
    this.#stats.set('silence', span(summary.longest_silence_ms));
    this.#charts.update();
  }

  update(values) {
    super.update(values);
    for (const [health, { tile }] of this.#tiles) setAttribute(tile, 'aria-pressed', this.list.chosen(health));
  }

  opened() {
    this.#latest.load();
  }

  events(events) {
    this.#latest.add(events);
  }

  repaint() {
    if (this.#over.open) this.#charts.build();
  }

  close() {
    this.#charts.close();
    super.close();
  }
}
