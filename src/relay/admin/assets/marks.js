// Words with a colour and a shape: none of the three alone says it.

import { h, setText } from './dom.js';
import { title } from './format.js';

/** What each kind of event looks like. */
const LOOKS = {
  connected: 'alive',
  resumed: 'alive',
  created: 'plain',
  extended: 'plain',
  took_over: 'late',
  drained: 'late',
  suspended: 'late',
  expired: 'away',
  disconnected: 'away',
  deleted: 'away',
  revoked: 'dead',
  refused: 'dead',
};

/** What each state of a tunnel looks like. */
const STATES = { online: 'alive', offline: 'away', suspended: 'late' };

/** A mark and its word; `set` changes both. */
class Mark {
  #shape = h('i', { class: 'shape', 'aria-hidden': 'true' });
  #word = h('span');
  node = h('span', { class: 'mark' }, this.#shape, this.#word);

  set(look, text) {
    if (this.node.dataset.look !== look) this.node.dataset.look = look;
    setText(this.#word, text);
  }
}

export class HealthMark extends Mark {
  set(health) {
    super.set(health, title(health));
  }
}

export class StateMark extends Mark {
  set(state) {
    super.set(STATES[state] ?? 'plain', title(state));
  }
}

export class KindMark extends Mark {
  static look = (kind) => LOOKS[kind] ?? 'plain';

  set(kind) {
    super.set(KindMark.look(kind), title(kind));
  }
}

export const KINDS = ['connected', 'took_over', 'disconnected', 'drained', 'refused', 'created', 'deleted', 'expired', 'suspended', 'resumed', 'extended', 'revoked'];
