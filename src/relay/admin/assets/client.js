// One client, closely.

import { disconnect, drain } from './actions.js';
import { get, query } from './api.js';
import { h, setAttribute, setText } from './dom.js';
import { Facts, heading, Rows } from './facts.js';
import { count, date, now, number, since, span, time, wait } from './format.js';
import { LEVELS } from './fleet.js';
import { ROWS as EVENTS } from './events.js';
import { HealthMark } from './marks.js';
import { address, go } from './route.js';
import { at, misses, Strip, tell } from './strip.js';

const EVERY = 2_000;
const HEIGHT = 64;
const MISSES = 6;

const connected = (client) => client.health === 'alive' || client.health === 'late';

export class Client {
  #page;
  #id;
  #client = null;
  #timer;
  #asking = null;
  #strip = new Strip(600, HEIGHT);
  #read = h('p', { class: 'read' });
  #missed = h('p', { class: 'sub' });
  #spread = new Spread();
  #health = new HealthMark();
  #gone = h('p', { class: 'notice', role: 'status', hidden: true });
  #facts;
  #events;
  #buttons = {};
  #watch = new ResizeObserver(([entry]) => this.#strip.resize(Math.max(240, Math.floor(entry.contentRect.width)), HEIGHT));

  constructor(page, id) {
    this.#page = page;
    this.#id = id;
    this.title = 'Client';
    const button = (name, label, action, danger) => {
      this.#buttons[name] = h('button', { type: 'button', class: danger ? 'danger' : null, disabled: true, on: { click: () => action(this.#client, page.toast) } }, label);
      return this.#buttons[name];
    };
    this.#facts = new Facts([
      ['Tunnel', { make: (cell) => {
        const link = h('a');
        cell.append(link);
        return (client) => {
          setText(link, client.tunnel);
          setAttribute(link, 'href', address('tunnels', client.tunnel_id));
        };
      } }],
      ['Owner', (client) => client.owner],
      ['Address', (client) => client.address],
      ['Program', (client) => client.agent ?? 'unknown'],
      ['Protocol', (client) => LEVELS[client.level] ?? client.level],
      ['Since', (client) => `${date(client.since)} (${since(client.since)})`],
      ['Session', (client) => client.id],
      ['Reconnects', (client) => number(client.reconnects)],
      ['Round trip', (client) => `${wait(client.round_trip_ms)}, p99 ${wait(client.p99_ms)}`],
      ['Pings', (client) => `${number(client.pings)}, of which ${number(client.pongs)} answered and ${number(client.missed)} missed`],
      ['Silent for', (client) => span(client.silence_ms)],
      ['Longest silence', (client) => span(client.longest_silence_ms)],
    ]);
    this.#events = new Rows('Events of this tunnel', EVENTS.filter((column) => !['tunnel', 'owner'].includes(column.id)), 'events');
    this.#strip.node.addEventListener('pointermove', (event) => this.#point(event));
    this.#strip.node.addEventListener('pointerleave', () => this.#tell());
    const track = h('div', { class: 'track' }, this.#strip.node);
    this.#watch.observe(track);
    this.heading = heading({ href: address('fleet'), label: 'Fleet' }, 'Client', this.#health.node, button('drain', 'Drain', drain), button('disconnect', 'Disconnect', disconnect, true));
    this.node = h('div', { class: 'view detail' }, this.heading, this.#gone,
      h('section', { class: 'panel whole' }, h('h2', null, 'Last hour'), track, h('p', { class: 'ends', 'aria-hidden': 'true' }, h('span', null, 'an hour ago'), h('span', null, 'now')), this.#read, this.#missed, legend()),
      h('div', { class: 'columns' },
        h('section', { class: 'panel' }, h('h2', null, 'About'), this.#facts.node),
        h('section', { class: 'panel' }, h('h2', null, 'Round trips'), this.#spread.node)),
      h('section', { class: 'panel whole' }, h('h2', null, 'Events of its tunnel'), this.#events.node));
  }

  update() {
    this.#ask();
    clearInterval(this.#timer);
    this.#timer = setInterval(() => this.#page.paused() || this.#ask(), EVERY);
  }

  async #ask() {
    if (this.#asking) return;
    this.#asking = new AbortController();
    try {
      this.#show(await get(`/api/clients/${encodeURIComponent(this.#id)}`, this.#asking.signal));
    } catch (error) {
      if (error.status === 404) await this.#find();
    } finally {
      this.#asking = null;
    }
  }

  /** A client that connects anew has another session; where it is the only one of its tunnel, the view goes with it. */
  async #find() {
    if (this.#client) {
      const { clients } = await get(`/api/clients?${query({ search: this.#client.tunnel, size: 200 })}`).catch(() => ({ clients: [] }));
      const same = clients.filter((client) => client.tunnel_id === this.#client.tunnel_id);
      if (same.length === 1) {
        go(address('fleet', same[0].id), true);
        return;
      }
    }
    this.#gone.hidden = false;
    setText(this.#gone, this.#client ? 'This session is over. Its client may be back under another one: look in the fleet.' : 'There is no client with this session, or not any more. Look in the fleet.');
    Object.values(this.#buttons).forEach((button) => { button.disabled = true; });
  }

  #show(client) {
    const first = this.#client?.tunnel !== client.tunnel;
    this.#client = client;
    this.#gone.hidden = true;
    this.title = client.tunnel;
    setText(this.heading.querySelector('h1'), client.tunnel);
    this.#health.set(client.health);
    this.#strip.set(client.strip);
    if (!this.#strip.node.matches(':hover')) this.#tell();
    const list = misses(client.strip, now());
    setText(this.#missed, list.length ? `No answer: ${list.slice(0, MISSES).map(({ from, length }) => `${time(from)} for ${span(length)}`).join(', ')}${list.length > MISSES ? ` and ${count(list.length - MISSES, 'more time')}` : ''}.` : '');
    this.#facts.set(client);
    this.#spread.set(client.spread ?? []);
    for (const button of Object.values(this.#buttons)) button.disabled = !connected(client);
    if (first) {
      this.#page.live.want('events', { search: client.tunnel, size: 50 });
      this.#page.named();
    }
  }

  #tell() {
    setText(this.#read, tell(this.#client.strip));
  }

  #point(event) {
    if (!this.#client) return;
    const { left, width } = this.#strip.node.getBoundingClientRect();
    setText(this.#read, at(this.#client.strip, (event.clientX - left) / width, now()));
  }

  page(page) {
    if (page.events && this.#client) this.#events.set(page.events.filter((event) => event.tunnel === this.#client.tunnel).slice(0, 10));
  }

  close() {
    clearInterval(this.#timer);
    this.#asking?.abort();
    this.#watch.disconnect();
  }
}

function legend() {
  const key = (name, label) => h('span', { class: 'legend' }, h('i', { class: 'tick', data: { tick: name } }), label);
  return h('p', { class: 'keys' }, key('fast', 'under 128 ms'), key('slow', 'under 1 s'), key('worst', 'slower'), key('missed', 'no answer'), key('nothing', 'not asked'), h('span', { class: 'sub' }, 'The taller, the slower; a tick is half a minute.'));
}

/** A histogram of round trips. */
class Spread {
  #rows = h('tbody');
  #none = h('p', { class: 'empty' }, 'No ping was answered yet.');
  #table = h('table', { class: 'spread', 'aria-label': 'Round trips by length' }, h('thead', null, h('tr', null, h('th', { scope: 'col' }, 'Up to'), h('th', { scope: 'col' }, 'Share'), h('th', { scope: 'col', class: 'numeric' }, 'Pongs'))), this.#rows);
  node = h('div', null, this.#table, this.#none);

  set(buckets) {
    const used = buckets.map((bucket, index) => (bucket.count ? index : -1)).filter((index) => index >= 0);
    this.#table.hidden = !used.length;
    this.#none.hidden = used.length > 0;
    // One empty bucket on either side shows where it ends.
    const shown = used.length ? buckets.slice(Math.max(0, used[0] - 1), used.at(-1) + 2) : [];
    const most = Math.max(1, ...shown.map((bucket) => bucket.count));
    while (this.#rows.children.length > shown.length) this.#rows.lastElementChild.remove();
    while (this.#rows.children.length < shown.length) this.#rows.append(h('tr', null, h('th', { scope: 'row' }), h('td', null, h('span', { class: 'bar' })), h('td', { class: 'numeric' })));
    shown.forEach((bucket, index) => {
      const [name, bar, total] = this.#rows.children[index].children;
      setText(name, bucket.below_ms === null ? 'more' : wait(bucket.below_ms));
      bar.firstElementChild.style.width = bucket.count ? `max(2px, ${(100 * bucket.count) / most}%)` : '0';
      setText(total, number(bucket.count));
    });
  }
}
