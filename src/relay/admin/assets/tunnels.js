// Tunnels: what goes through them, and what goes wrong.

import { h, setAttribute, setText, webAddress } from './dom.js';
import { bytes, date, number, rate, since, wait, words } from './format.js';
import { ListView } from './listview.js';
import { filter, StateMark } from './marks.js';
import { address } from './route.js';
import { Stats } from './stats.js';
import { marked, text } from './table.js';

/** The failures of a tunnel with their causes, the most frequent first. */
export const failures = (tunnel) => Object.entries(tunnel.failures).filter(([, count]) => count > 0).sort((a, b) => b[1] - a[1]);

/** How many these are. */
const times = (causes) => causes.reduce((sum, [, count]) => sum + count, 0);

/** An address that opens, or only text where a browser should not go there. */
export function link(cell, stop = true) {
  const node = h('a', { class: 'url cut', target: '_blank', rel: 'noopener noreferrer', tabindex: stop ? null : -1 });
  cell.append(node);
  return (url) => {
    setText(node, url);
    setAttribute(node, 'href', webAddress(url));
  };
}

const COLUMNS = [
  marked('state', 'State', () => new StateMark(), (tunnel) => tunnel.state),
  {
    id: 'name', label: 'Tunnel', sort: 'name',
    make(cell) {
      const open = h('a', { class: 'open', tabindex: -1 });
      cell.append(open);
      const url = link(cell, false);
      return (tunnel) => {
        setText(open, tunnel.name);
        setAttribute(open, 'href', address('tunnels', tunnel.id));
        url(tunnel.url);
      };
    },
  },
  text('owner', 'Owner', (tunnel) => tunnel.owner, { sort: 'owner' }),
  {
    id: 'age', label: 'Age', sort: 'age', first: 'desc', numeric: true,
    make(cell) {
      let shown = null;
      return (tunnel) => {
        setText(cell, since(tunnel.created_at));
        if (tunnel.created_at !== shown) setAttribute(cell, 'title', `since ${date(tunnel.created_at)}`);
        shown = tunnel.created_at;
      };
    },
  },
  text('viewers', 'Viewers', (tunnel) => number(tunnel.viewers), { sort: 'viewers', first: 'desc', numeric: true, about: 'Requests and connections under way' }),
  text('rate', 'Requests/s', (tunnel) => rate(tunnel.requests_per_s), { sort: 'requests', first: 'desc', numeric: true }),
  {
    id: 'bytes', label: 'Bytes', sort: 'bytes', first: 'desc', numeric: true,
    make(cell) {
      const [all, now] = [h('span'), h('span', { class: 'sub' })];
      cell.append(all, now);
      return (tunnel) => {
        setText(all, bytes(tunnel.bytes_in + tunnel.bytes_out));
        setText(now, `${bytes(tunnel.bytes_per_s)}/s`);
      };
    },
  },
  {
    id: 'wait', label: 'Wait', sort: 'wait', first: 'desc', numeric: true, about: 'For the first byte',
    make(cell) {
      const [half, most] = [h('span'), h('span', { class: 'sub' })];
      cell.append(half, most);
      return (tunnel) => {
        setText(half, wait(tunnel.wait?.p50_ms));
        setText(most, `p99 ${wait(tunnel.wait?.p99_ms)}`);
      };
    },
  },
  {
    id: 'failures', label: 'Failures', sort: 'failures', first: 'desc', numeric: true,
    make(cell) {
      const [all, worst] = [h('span'), h('span', { class: 'sub cut' })];
      cell.append(all, worst);
      return (tunnel) => {
        const causes = failures(tunnel);
        const total = times(causes);
        setText(all, number(total));
        setText(worst, causes.length ? words(causes[0][0]) : '');
        setAttribute(cell, 'title', causes.map(([cause, count]) => `${words(cause)}: ${number(count)}`).join(', ') || null);
        cell.classList.toggle('some', total > 0);
      };
    },
  },
  text('sockets', 'Idle, standby', (tunnel) => `${number(tunnel.idle_data_sockets)}, ${number(tunnel.standby_data_sockets)}`, { numeric: true }),
];

const SPEC = {
  view: 'tunnels', path: '/api/tunnels', rows: 'tunnels', noun: 'tunnel', label: 'Tunnels',
  key: (tunnel) => tunnel.id,
  columns: COLUMNS, sort: 'name', order: 'asc',
  filter: filter('state', 'State', StateMark),
  hint: 'There is no tunnel. Start one with: adit http 3000',
};

export class Tunnels extends ListView {
  #stats = new Stats([
    ['tunnels', 'Tunnels'], ['viewers', 'Viewers'], ['requests', 'Requests/s'], ['bytes', 'Bytes/s'],
    ['claim', 'Claim p50'], ['first', 'First byte p50'], ['sockets', 'Sockets in use'], ['failures', 'Failures'],
  ]);

  constructor(page) {
    super(SPEC, page);
    this.node.prepend(h('h1', { class: 'hidden' }, this.title), h('section', { class: 'figures', 'aria-label': 'Tunnels in figures' }, this.#stats.node));
  }

  summary(summary) {
    const { tunnels, claim_wait: claim, first_byte: first, data_sockets: sockets } = summary;
    const causes = failures(summary);
    this.#stats.set('tunnels', number(tunnels.online + tunnels.offline), `${number(tunnels.offline)} offline, ${number(tunnels.suspended)} suspended`);
    this.#stats.set('viewers', number(summary.viewers), `${number(summary.waiting)} waiting`);
    this.#stats.set('requests', rate(summary.requests_per_s), `${number(summary.requests)} in all`);
    this.#stats.set('bytes', bytes(summary.bytes_per_s), `${bytes(summary.bytes_in)} in, ${bytes(summary.bytes_out)} out`);
    this.#stats.set('claim', wait(claim.p50_ms), `p99 ${wait(claim.p99_ms)}`);
    this.#stats.set('first', wait(first.p50_ms), `p99 ${wait(first.p99_ms)}`);
    this.#stats.set('sockets', number(sockets.in_use), `${number(sockets.idle)} idle, ${number(sockets.standby)} standby`);
    this.#stats.set('failures', number(times(causes)), causes.length ? `most: ${words(causes[0][0])}` : 'none');
  }
}
