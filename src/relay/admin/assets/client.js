// One client, closely.

import { disconnect, drain } from './actions.js';
import { get, path, unanswered } from './api.js';
import { Detail } from './detail.js';
import { h, setAttribute, setText } from './dom.js';
import { Facts } from './facts.js';
import { LEVELS } from './fleet.js';
import { count, date, now, number, since, span, time, wait } from './format.js';
import { HealthMark } from './marks.js';
import { address, go } from './route.js';
import { Spread } from './spread.js';
import { at, misses, Strip, tell } from './strip.js';

const HEIGHT = 64;
const MISSES = 6;
/** What ends a session. */
const ENDS = ['disconnected', 'took_over', 'drained', 'deleted', 'expired', 'revoked'];

const connected = (client) => client.health === 'alive' || client.health === 'late';

/** Its tunnel, with a link to it. */
const tunnel = {
  make(cell) {
    const link = h('a');
    cell.append(link);
    return (client) => {
      setText(link, client.tunnel);
      setAttribute(link, 'href', address('tunnels', client.tunnel_id));
    };
  },
};

const FACTS = [
  ['Tunnel', tunnel],
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
];

export class Client extends Detail {
  #health;
  #strip = new Strip(600, HEIGHT);
  #read = h('p', { class: 'read' });
  #missed = h('p', { class: 'sub' });
  #spread = new Spread();
  #facts = new Facts(FACTS);
  #watch = new ResizeObserver(([entry]) => this.#strip.resize(Math.max(240, Math.floor(entry.contentRect.width)), HEIGHT));

  constructor(page, id) {
    const health = new HealthMark();
    super(page, { view: 'fleet', title: 'Client', path: path('clients', id), mark: health, actions: [['Drain', drain], ['Disconnect', disconnect, true]] });
    this.#health = health;
    this.#strip.node.addEventListener('pointermove', (event) => this.#point(event));
    this.#strip.node.addEventListener('pointerleave', () => this.#tell());
    const track = h('div', { class: 'track' }, this.#strip.node);
    this.#watch.observe(track);
    this.parts(
      h('section', { class: 'panel' }, h('h2', null, 'Last hour'), track, h('p', { class: 'ends', 'aria-hidden': 'true' }, h('span', null, 'an hour ago'), h('span', null, 'now')), this.#read, this.#missed, legend()),
      h('div', { class: 'columns' },
        h('section', { class: 'panel' }, h('h2', null, 'About'), this.#facts.node),
        h('section', { class: 'panel' }, h('h2', null, 'Round trips'), this.#spread.node)));
  }

  name(client) {
    return client.tunnel;
  }

  /** A client that connects anew has another session; where it is the only one of its tunnel, the view goes with it. */
  async missing(signal) {
    if (!this.thing) {
      this.gone('Gone', 'There is no client with this session, or not any more.', 'All clients');
      return;
    }
    const { tunnel: name, tunnel_id: id } = this.thing;
    const found = await get('/api/clients', { search: name, size: 200 }, signal).catch(unanswered);
    if (!found || signal.aborted) return;
    const same = found.clients.filter((client) => client.tunnel_id === id);
    if (same.length === 1) {
      go(address('fleet', same[0].id), true);
      return;
    }
    const ended = connected(this.thing) ? this.since(ENDS) : `, since ${time(this.thing.since)}`;
    this.gone('Gone', `This client is gone${ended}. It may be back with another session.`, `Clients of ${name}`, { search: name });
  }

  set(client) {
    this.#health.set(client.health);
    this.#strip.set(client.strip);
    if (!this.#strip.node.matches(':hover')) this.#tell();
    const list = misses(client.strip, now());
    setText(this.#missed, list.length ? `No answer: ${list.slice(0, MISSES).map(({ from, length }) => `${time(from)} for ${span(length)}`).join(', ')}${list.length > MISSES ? ` and ${count(list.length - MISSES, 'more time')}` : ''}.` : '');
    this.#facts.set(client);
    this.#spread.set(client.spread ?? []);
    this.enable(connected(client));
  }

  #tell() {
    if (this.thing) setText(this.#read, tell(this.thing.strip));
  }

  #point(event) {
    if (!this.thing) return;
    const { left, width } = this.#strip.node.getBoundingClientRect();
    setText(this.#read, at(this.thing.strip, (event.clientX - left) / width, now()));
  }

  close() {
    super.close();
    this.#watch.disconnect();
  }
}

function legend() {
  const key = (name, label) => h('span', { class: 'legend' }, h('i', { class: 'tick', data: { tick: name } }), label);
  return h('p', { class: 'keys' }, key('fast', 'under 128 ms'), key('slow', 'under 1 s'), key('worst', 'slower'), key('missed', 'no answer'), key('nothing', 'not asked'), h('span', { class: 'sub' }, 'The taller, the slower; a tick is half a minute.'));
}
