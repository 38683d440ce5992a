// One tunnel, closely.

import { close, extend, suspend } from './actions.js';
import { get } from './api.js';
import { h, setText } from './dom.js';
import { Facts, heading, Rows } from './facts.js';
import { bytes, date, now, number, rate, since, span, time, wait, words } from './format.js';
import { COLUMNS } from './fleet.js';
import { ROWS as EVENTS } from './events.js';
import { StateMark } from './marks.js';
import { address } from './route.js';
import { failures, link } from './tunnels.js';

const EVERY = 2_000;

const end = (tunnel) => (tunnel.expires_at === null ? 'none' : `${date(tunnel.expires_at)} (in ${span(tunnel.expires_at - now())})`);

export class TunnelView {
  #page;
  #id;
  #tunnel = null;
  #timer;
  #asking = null;
  #state = new StateMark();
  #gone = h('p', { class: 'notice', role: 'status', hidden: true });
  #facts;
  #traffic;
  #failures;
  #clients;
  #events;
  #buttons = {};

  constructor(page, id) {
    this.#page = page;
    this.#id = id;
    this.title = 'Tunnel';
    const done = (sentence) => {
      page.toast(sentence);
      this.#ask();
    };
    const button = (name, label, action, danger) => {
      this.#buttons[name] = h('button', { type: 'button', class: danger ? 'danger' : null, disabled: true, on: { click: () => action(this.#tunnel, done) } }, label);
      return this.#buttons[name];
    };
    const url = { make: (cell) => {
      const set = link(cell);
      return (tunnel) => set(tunnel.url);
    } };
    this.#facts = new Facts([
      ['URL', url],
      ['Owner', (tunnel) => tunnel.owner],
      ['Kind', (tunnel) => tunnel.proto],
      ['Made', (tunnel) => `${date(tunnel.created_at)} (${since(tunnel.created_at)} ago)`],
      ['End', end],
      ['Last used', (tunnel) => (tunnel.last_active === null ? 'never' : time(tunnel.last_active))],
      ['Id', (tunnel) => tunnel.id],
    ]);
    this.#traffic = new Facts([
      ['Viewers now', (tunnel) => number(tunnel.viewers)],
      ['Requests', (tunnel) => `${number(tunnel.requests)}, ${rate(tunnel.requests_per_s)}/s now`],
      ['Bytes in', (tunnel) => bytes(tunnel.bytes_in)],
      ['Bytes out', (tunnel) => bytes(tunnel.bytes_out)],
      ['Bytes now', (tunnel) => `${bytes(tunnel.bytes_per_s)}/s`],
      ['Wait', (tunnel) => `p50 ${wait(tunnel.wait?.p50_ms)}, p99 ${wait(tunnel.wait?.p99_ms)}`],
      ['Data sockets', (tunnel) => `${number(tunnel.idle_data_sockets)} idle, ${number(tunnel.standby_data_sockets)} standby`],
    ]);
    this.#failures = new Rows('Failures by cause', [
      { id: 'cause', label: 'Cause', make: (cell) => ([cause]) => setText(cell, words(cause)) },
      { id: 'count', label: 'Times', numeric: true, make: (cell) => ([, count]) => setText(cell, number(count)) },
    ], 'causes');
    this.#clients = new Rows('Clients of this tunnel', COLUMNS, 'fleet', 'No client serves it.');
    this.#events = new Rows('Events of this tunnel', EVENTS.filter((column) => !['tunnel', 'owner'].includes(column.id)), 'events');
    this.heading = heading({ href: address('tunnels'), label: 'Tunnels' }, 'Tunnel', this.#state.node, button('suspend', 'Suspend', suspend), button('extend', 'Extend', extend), button('close', 'Close', close, true));
    this.node = h('div', { class: 'view detail' }, this.heading, this.#gone,
      h('div', { class: 'columns three' },
        h('section', { class: 'panel' }, h('h2', null, 'About'), this.#facts.node),
        h('section', { class: 'panel' }, h('h2', null, 'Traffic'), this.#traffic.node),
        h('section', { class: 'panel' }, h('h2', null, 'Failures'), this.#failures.node)),
      h('section', { class: 'panel whole' }, h('h2', null, 'Clients'), this.#clients.node),
      h('section', { class: 'panel whole' }, h('h2', null, 'Events'), this.#events.node));
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
      this.#show(await get(`/api/tunnels/${encodeURIComponent(this.#id)}`, this.#asking.signal));
    } catch (error) {
      if (error.status === 404) {
        this.#gone.hidden = false;
        setText(this.#gone, this.#tunnel ? 'This tunnel is closed.' : 'There is no tunnel with this id, or not any more.');
        Object.values(this.#buttons).forEach((button) => { button.disabled = true; });
      }
    } finally {
      this.#asking = null;
    }
  }

  #show(tunnel) {
    const first = !this.#tunnel;
    this.#tunnel = tunnel;
    this.#gone.hidden = true;
    this.title = tunnel.name;
    setText(this.heading.querySelector('h1'), tunnel.name);
    this.#state.set(tunnel.state);
    this.#facts.set(tunnel);
    this.#traffic.set(tunnel);
    this.#failures.set(failures(tunnel));
    this.#clients.set(tunnel.sessions ?? []);
    setText(this.#buttons.suspend, tunnel.state === 'suspended' ? 'Resume' : 'Suspend');
    Object.values(this.#buttons).forEach((button) => { button.disabled = false; });
    if (first) {
      this.#page.live.want('events', { search: tunnel.name, size: 50 });
      this.#page.named();
    }
  }

  page(page) {
    if (page.events && this.#tunnel) this.#events.set(page.events.filter((event) => event.tunnel === this.#tunnel.name).slice(0, 10));
  }

  close() {
    clearInterval(this.#timer);
    this.#asking?.abort();
  }
}
