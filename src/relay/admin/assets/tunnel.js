// One tunnel, closely.

import { close, extend, suspend } from './actions.js';
import { path } from './api.js';
import { Detail } from './detail.js';
import { h, setText } from './dom.js';
import { Facts, Rows } from './facts.js';
import { COLUMNS } from './fleet.js';
import { bytes, date, now, number, rate, since, span, time, wait, words } from './format.js';
import { StateMark } from './marks.js';
import { failures, link } from './tunnels.js';

/** What ends a tunnel. */
const ENDS = ['deleted', 'expired', 'revoked'];

const end = (tunnel) => (tunnel.expires_at === null ? 'none' : `${date(tunnel.expires_at)} (in ${span(tunnel.expires_at - now())})`);

const url = {
  make(cell) {
    const set = link(cell);
    return (tunnel) => set(tunnel.url);
  },
};

const FACTS = [
  ['URL', url],
  ['Owner', (tunnel) => tunnel.owner],
  ['Kind', (tunnel) => tunnel.proto],
  ['Made', (tunnel) => `${date(tunnel.created_at)} (${since(tunnel.created_at)} ago)`],
  ['End', end],
  ['Last used', (tunnel) => (tunnel.last_active === null ? 'never' : time(tunnel.last_active))],
  ['Id', (tunnel) => tunnel.id],
];

const TRAFFIC = [
  ['Viewers now', (tunnel) => number(tunnel.viewers)],
  ['Requests', (tunnel) => `${number(tunnel.requests)}, ${rate(tunnel.requests_per_s)}/s now`],
  ['Bytes in', (tunnel) => bytes(tunnel.bytes_in)],
  ['Bytes out', (tunnel) => bytes(tunnel.bytes_out)],
  ['Bytes now', (tunnel) => `${bytes(tunnel.bytes_per_s)}/s`],
  ['Wait', (tunnel) => `p50 ${wait(tunnel.wait?.p50_ms)}, p99 ${wait(tunnel.wait?.p99_ms)}`],
  ['Data sockets', (tunnel) => `${number(tunnel.idle_data_sockets)} idle, ${number(tunnel.standby_data_sockets)} standby`],
];

const CAUSES = [
  { id: 'cause', label: 'Cause', make: (cell) => ([cause]) => setText(cell, words(cause)) },
  { id: 'count', label: 'Times', numeric: true, make: (cell) => ([, count]) => setText(cell, number(count)) },
];

export class Tunnel extends Detail {
  #state;
  #facts = new Facts(FACTS);
  #traffic = new Facts(TRAFFIC);
  #failures = new Rows('Failures by cause', CAUSES, 'causes');
  #clients = new Rows('Clients of this tunnel', COLUMNS, 'fleet', 'No client serves it.');

  constructor(page, id) {
    const state = new StateMark();
    super(page, { view: 'tunnels', title: 'Tunnel', path: path('tunnels', id), mark: state, actions: [['Suspend', suspend], ['Extend', extend], ['Close', close, true]] });
    this.#state = state;
    this.parts(
      h('div', { class: 'columns three' },
        h('section', { class: 'panel' }, h('h2', null, 'About'), this.#facts.node),
        h('section', { class: 'panel' }, h('h2', null, 'Traffic'), this.#traffic.node),
        h('section', { class: 'panel' }, h('h2', null, 'Failures'), this.#failures.node)),
      h('section', { class: 'panel' }, h('h2', null, 'Clients'), this.#clients.node));
  }

  name(tunnel) {
    return tunnel.name;
  }

  missing() {
    const why = this.thing ? `This tunnel is closed${this.since(ENDS)}.` : 'There is no tunnel with this id, or not any more.';
    this.gone(this.thing ? 'Closed' : 'Gone', why, 'All tunnels');
  }

  set(tunnel) {
    this.#state.set(tunnel.state);
    this.#facts.set(tunnel);
    this.#traffic.set(tunnel);
    this.#failures.set(failures(tunnel));
    this.#clients.set(tunnel.sessions ?? []);
    setText(this.buttons[0], tunnel.state === 'suspended' ? 'Resume' : 'Suspend');
    this.enable(true);
  }
}
