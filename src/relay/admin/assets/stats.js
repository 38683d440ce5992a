// Figures with a label above and a word below.

import { h, setText } from './dom.js';
import { NONE } from './format.js';

export class Stats {
  #figures = new Map();

  /** `figures`: `[id, label, below]`. */
  constructor(figures) {
    this.node = h('dl', { class: 'stats' }, figures.map(([id, label, sub = '']) => {
      const [value, below] = [h('dd', { class: 'value' }, NONE), h('dd', { class: 'sub' }, sub)];
      this.#figures.set(id, { value, below });
      return h('div', { class: 'stat' }, h('dt', null, label), value, below);
    }));
  }

  /** What is below stays where nothing is said of it. */
  set(id, value, below = null) {
    const figure = this.#figures.get(id);
    setText(figure.value, value);
    if (below !== null) setText(figure.below, below);
  }
}
