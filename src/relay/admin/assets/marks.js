// Words with a colour and a shape: none of the three alone says it.

import { h, setText } from './dom.js';
import { title } from './format.js';

/** The kinds of health, and what each means. */
const HEALTH = {
  alive: 'answers pings',
  late: 'a pong is overdue',
  dead: 'lost, not back yet',
  away: 'left in order',
};

/** What each state of a tunnel looks like. */
const STATES = { online: 'alive', offline: 'away', suspended: 'late' };

/** What each kind of event looks like. */
const KINDS = {
  connected: 'alive',
  took_over: 'late',
  disconnected: 'away',
  drained: 'late',
  refused: 'dead',
  created: 'plain',
  deleted: 'away',
  expired: 'away',
  suspended: 'late',
  resumed: 'alive',
  extended: 'plain',
  revoked: 'dead',
};

/** A mark and its word. */
class Mark {
  #shape = h('i', { class: 'shape', 'aria-hidden': 'true' });
  #word = h('span');
  node = h('span', { class: 'mark' }, this.#shape, this.#word);

  say(look, text) {
    if (this.node.dataset.look !== look) this.node.dataset.look = look;
    setText(this.#word, text);
  }

  /** A word of the relay's. */
  set(word) {
    this.say(this.constructor.look(word), title(word));
  }
}

export class HealthMark extends Mark {
  static words = Object.keys(HEALTH);
  static look = (health) => health;
  static means = (health) => HEALTH[health];
}

export class StateMark extends Mark {
  static words = Object.keys(STATES);
  static look = (state) => STATES[state] ?? 'plain';
}

export class KindMark extends Mark {
  static words = Object.keys(KINDS);
  static look = (kind) => KINDS[kind] ?? 'plain';
}

/** The filter of a list by what a mark says. */
export const filter = (name, label, { words, look }) => ({ name, label, options: words, look });
